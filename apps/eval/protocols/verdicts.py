"""A verdict in words: a letter, a label, or a label of the protocol's own.

Where the judge wrote its tag only what follows counts. Without a tag a verdict alone on the last
line or in closing JSON comes before brackets that stand earlier, as in `I leaned to [[A]].`
"""

import re

from apps.eval.protocols import words
from apps.eval.protocols.form import LABELS
from apps.eval.protocols.json_verdict import closing_json, verdict_in
from apps.eval.protocols.own_words import (
    after_tag,
    all_said,
    head,
    holds_another,
    last_line,
    last_meant,
    without_menus,
    without_quotations,
)

SIDE = rf"(?i:(?:(?:{words.SIDE})\s{{0,9}})?)"
_ANNOUNCED = (
    rf"(?i:(?:(?:my|the)\s+)?(?:(?:{words.FINAL})\s{{0,9}})?"
    rf"(?:{words.VERDICT})(?:\s{{0,9}}(?:{words.FINAL}))?"
    r"\W{0,9}(?:is\W{0,9})?)"
)
_BOXED = r"(?:\\boxed)?\W{0,9}"
_WINS = rf"(?i:{words.WINS})?"
_SENTENCE = r"(?:\A|[.!?:;,]\W{0,3}\s|(?i:\b(?:so|thus|hence|therefore))\s)\W{0,9}"


class WordReader:
    """Reads one kind of words, which `bare` and `bracketed` match; the first group is the verdict.

    `bare` is exact about capitals, because "a" is an article; `bracketed` is not.
    """

    def __init__(self, bare: str, bracketed: str | None = None, side: str = "") -> None:
        word = rf"{side}({bare})"
        self._bracketed = re.compile(rf"\[\[\s*{side}({bracketed or bare})\s*\]\]", re.IGNORECASE)
        self._alone = re.compile(rf"\A\W*(?:{_ANNOUNCED})?{_BOXED}{word}{_WINS}\W*\Z")
        # `My reasons ... Final verdict: B` on one line
        self._announced = re.compile(rf"{_SENTENCE}{_ANNOUNCED}{_BOXED}{word}{_WINS}\W*\Z")
        # `B because ...`, `B. Not [[A]].`
        self._first = re.compile(
            rf"\A\W*(?:{_ANNOUNCED})?{_BOXED}{word}{_WINS}[\])}}*_\"'`]{{0,9}}\s{{0,9}}"
            r"(?:[.;(]|\b(?:because|since|as|rather|over)\b|\Z)"
        )

    def said(self, body: str, nonce: str | None) -> str | None:
        """The verdict of a whole text, in the judge's spelling."""
        tails = after_tag(body, nonce)
        if tails is None:
            return self._untagged(body)
        for tail, _ in tails:
            if match := self._first.match(head(without_menus(tail, self._bracketed))):
                return match[1]
        own = [tail for tail, is_own in tails if is_own]
        if own and (found := self._behind(without_menus(own[0], self._bracketed))):
            return found
        closing = closing_json(body)
        if nonce and nonce in closing:
            return verdict_in(closing)
        return None if own else self._untagged(body)

    def _behind(self, tail: str) -> str | None:
        """A verdict in any form after the tag."""
        if said := all_said(self._bracketed, head(tail)):
            return self._unless_another(said[0])
        if found := self._closing(tail) or verdict_in(tail):
            return found
        said = all_said(self._bracketed, tail)
        return self._unless_another(said[0]) if said else None

    def _unless_another(self, match: re.Match[str]) -> str | None:
        """What it says, unless brackets before it hold something else."""
        return None if holds_another(self._bracketed, match.string[: match.start()]) else match[1]

    def _untagged(self, body: str) -> str | None:
        body = without_menus(body, self._bracketed)
        outside = without_quotations(body)
        if last_line(body) in outside and (found := self._closing(body)):
            return found
        if found := verdict_in(closing_json(body)):
            return found
        if match := last_meant(self._bracketed, outside):
            return match[1]
        if found := self._closing(body) or verdict_in(body):
            return found
        match = last_meant(self._bracketed, last_line(body))
        return match[1] if match else None

    def _closing(self, body: str) -> str | None:
        line = last_line(body)
        match = self._alone.match(line) or self._announced.search(line)
        return match[1] if match else None


LETTER = WordReader(f"[ABC]|(?i:{words.TIE})", f"A|B|C|{words.TIE}", SIDE)
LABEL = WordReader("|".join(r"\s*".join(re.split(r"(\W+)", label)) for label in LABELS))


def choice_reader(names: tuple[str, ...]) -> WordReader:
    """Of a protocol's own labels; `good enough` before `good`."""
    longest_first = sorted(names, key=len, reverse=True)
    return WordReader(rf"(?i:{'|'.join(re.escape(name) for name in longest_first)})")
