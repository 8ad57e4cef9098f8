"""Personal data and secrets, replaced by typed placeholders.

Patterns run in google-re2, whose time is linear in the text: the usual e-mail expressions need
seconds for 80 KB of base64 in a backtracking engine.
"""

import dataclasses
import ipaddress
import re
from collections.abc import Callable

import re2

from apps.data.read.records import Record
from apps.data.rules.profiles import Rules
from apps.data.rules.verdict import Verdict

_PATTERNS = {
    "SECRET": (
        r"\b(?:sk-[A-Za-z0-9_\-]{20,}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}"
        r"|xox[abprs]-[A-Za-z0-9\-]{10,}|AIza[0-9A-Za-z_\-]{35}|glpat-[A-Za-z0-9_\-]{20,})\b"
        r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\s]*-----END [A-Z ]*PRIVATE KEY-----"
    ),
    "EMAIL": r"\b[A-Za-z0-9][A-Za-z0-9._%+\-]*@[A-Za-z0-9][A-Za-z0-9.\-]*\.[A-Za-z]{2,}\b",
    "IBAN": r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b",
    "CARD": r"\b[0-9](?:[ \-]?[0-9]){12,18}\b",
    "SSN": r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b",
    "IP": r"\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b",
    "PHONE": (
        r"\+[0-9]{1,3}[ .\-]?(?:\([0-9]{1,4}\)|[0-9]{1,4})(?:[ .\-]?[0-9]{2,4}){2,4}\b"
        r"|\(?\b[0-9]{3}\)?[ .\-][0-9]{3}[ .\-][0-9]{4}\b"
    ),
}
_CLASSES = {name: re2.compile(pattern) for name, pattern in _PATTERNS.items()}
_ANY = re2.compile("|".join(f"(?:{pattern})" for pattern in _PATTERNS.values()))


def personal_data(record: Record, rules: Rules) -> Verdict:
    if rules.personal_data != "mask":
        return None
    turns = []
    for turn in record.turns:
        text, masked = mask(turn.text)
        turns.append(dataclasses.replace(turn, text=text) if masked else turn)
    return turns if any(a is not b for a, b in zip(turns, record.turns, strict=True)) else None


def mask(text: str) -> tuple[str, int]:
    """The text with `<EMAIL>`, `<PHONE>`... in it, and how many were put there."""
    if _ANY.search(text) is None:
        return text, 0
    total = 0
    for name, pattern in _CLASSES.items():
        is_real = _CHECKS.get(name)
        masked = 0

        def replace(match, name=name, is_real=is_real):  # type: ignore[no-untyped-def]
            nonlocal masked
            if is_real is not None and not is_real(match.group(0)):
                return match.group(0)
            masked += 1
            return f"<{name}>"

        text = pattern.sub(replace, text)
        total += masked
    return text, total


def _is_card(text: str) -> bool:
    """Luhn's check, ISO/IEC 7812-1; 13 to 19 digits in groups, that open as a payment card's do.

    Of numbers at random, times in milliseconds or lists of digits, every tenth has a right sum.
    """
    if text[0] not in "23456" or min(map(len, re.split("[ -]", text))) < 3:
        return False
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [d * 2 - 9 if d > 4 else d * 2 for d in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    """Modulo 97 of the rearranged number, ISO 13616."""
    compact = text.replace(" ", "")
    number = "".join(str(int(c, 36)) for c in compact[4:] + compact[:4])
    return int(number) % 97 == 1


def _is_public_ip(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


_CHECKS: dict[str, Callable[[str], bool]] = {
    "CARD": _is_card,
    "IBAN": _is_iban,
    "IP": _is_public_ip,
}
