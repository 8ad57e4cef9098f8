"""Personal data and secrets, replaced by typed placeholders.

Patterns (`entities.py`) run in google-re2, whose time is linear in the text: the usual e-mail
expressions need seconds for 80 KB of base64 in a backtracking engine. Each match is then checked
where it stands: check digits, and what is written before and after it.
"""

# re2 is partly unknown:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

import dataclasses

import re2

from apps.data.read.record.layout import Turn
from apps.data.read.records import Record
from apps.data.rules.entities import ENTITIES, Entity
from apps.data.rules.profiles import Rules
from apps.data.rules.verdict import Verdict

_CLASSES = [(entity, re2.compile(entity.pattern)) for entity in ENTITIES]
_ANY = re2.compile("|".join(f"(?:{entity.pattern})" for entity in ENTITIES))


def personal_data(record: Record, rules: Rules) -> Verdict:
    """Mask every turn, people's too; the share that was right is in `personal_quality.json`."""
    if rules.personal_data != "mask":
        return None
    if _ANY.search("\n".join(turn.text for turn in record.turns)) is None:
        return None
    turns: list[Turn] = []
    for turn in record.turns:
        text, masked = mask(turn.text)
        turns.append(dataclasses.replace(turn, text=text) if masked else turn)
    return turns if any(a is not b for a, b in zip(turns, record.turns, strict=True)) else None


def mask(text: str) -> tuple[str, int]:
    """The text with `<EMAIL>`, `<PHONE>`... in it, and how many were put there."""
    if _ANY.search(text) is None:
        return text, 0
    total = 0
    for entity, pattern in _CLASSES:
        spans = [match.span() for match in pattern.finditer(text)]
        real = [span for span in spans if _is_real(entity, text, *span)]
        for start, end in reversed(real):
            text = f"{text[:start]}<{entity.name}>{text[end:]}"
        total += len(real)
    return text, total


def _is_real(entity: Entity, text: str, start: int, end: int) -> bool:
    return entity.is_real is None or entity.is_real(text, start, end)
