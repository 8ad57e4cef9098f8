"""From a judge's text to a score or a verdict. Pure, versioned, and free to run again.

The raw text is never changed; `reparse` applies the current version to all of it. Whatever cannot
be read stays what it is (`unparsed`, `refused`, `truncated`): a failure never becomes a score.

What is read is a verdict's form (form.py): numbers on a scale (numbers.py), letters and labels
(verdicts.py), where the judge's own words stand (own_words.py).
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import cast

from apps.eval.calls.lines import ParsedLine, ResponseLine, Status
from apps.eval.calls.reply import (
    OPENING_TAG,
    THOUGHT_TAGS,
    plain_reason,
    thought_ends,
    with_plain_tags,
)
from apps.eval.protocols import verdicts, words
from apps.eval.protocols.form import LABELS, Form, Format
from apps.eval.protocols.numbers import is_pair_line, rating_said, scores_said
from apps.eval.protocols.own_words import without_quotations

PARSER_VERSION = "11"

_BLANKS = re.compile(r"(\s)\1+")
_TIE = re.compile(f"{words.TIE}|both|equal", re.IGNORECASE)
_THINK = re.compile(rf"<({THOUGHT_TAGS})>.*?</\1>", re.IGNORECASE | re.DOTALL)
_SIGNS = {
    **{0x2212: "-", 0x2013: "-", 0x2044: "/"},
    **{0x3001: ",", 0x060C: ",", 0x066B: ".", 0x066C: ",", 0x226B: ">>"},
}
_REFUSAL = re.compile(
    r"\b(?:i(?:['\u2019]m| am) (?:sorry|unable)|as an ai\b|cannot (?:assist|comply|help)"
    r"|i must decline|i (?:can(?:no|['\u2019])t|won['\u2019]t|will not)\b"
    # "I cannot find a fault in the first" judges; "I can't decide" may be asked once more.
    r"(?! (?:find|see|spot|detect|fault|list|repeat|decide|choose|tell|say|distinguish|separate)))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What one judgment says. Scores and verdict refer to the displayed order."""

    status: Status
    scores: tuple[float, ...] | None = None
    verdict: str | None = None


def parse(
    text: str, form: Form | Format, finish_reason: str = "stop", nonce: str | None = None
) -> Parsed:
    """Reads a judgment; `nonce` is the tag the judge was asked to put before its verdict.

    A format alone stands for its form with a scale of 1 to 10.
    """
    if isinstance(form, str):
        form = Form(fmt=form)
    reason = plain_reason(finish_reason)
    if reason == "content_filter":
        return Parsed("refused")
    if reason == "error":
        return Parsed("truncated")
    was_cut = reason == "length"
    # A model may fall into writing blanks alone, and patterns take their time over those.
    body = _BLANKS.sub(r"\1", _THINK.sub("", with_plain_tags(plain(text)))).strip()
    is_scored_first = is_pair_line(body.split("\n", 1)[0], form)
    if not is_scored_first and (ends := thought_ends(body)):
        body = body[ends[-1].end() :].strip()
    if OPENING_TAG.search(without_quotations(body)):
        return Parsed("truncated" if was_cut else "unparsed")
    # Where the verdict comes last, a text cut by the token limit holds at most a provisional one.
    is_first_whole = form.fmt == "scores" and _first_line_is_whole(body, form)
    if (not was_cut or is_first_whole) and (parsed := _read(body, form, nonce, was_cut)):
        return parsed
    if was_cut:
        return Parsed("truncated")
    return Parsed("refused" if _REFUSAL.search(body[:400]) else "unparsed")


def form_of(record: ResponseLine) -> Form:
    """What the judge of a stored response was asked for."""
    low, high = record.get("scale", (1.0, 10.0))
    return Form(
        fmt=cast(Format, record["format"]),
        low=low,
        high=high,
        labels=tuple(record.get("labels", {}).items()),
        is_pair=len(record["models"]) == 2,
    )


def parse_record(record: ResponseLine) -> ParsedLine:
    """A line of parsed-<version>.jsonl from a line of raw.jsonl."""
    form = form_of(record)
    parsed = parse(record["response_text"], form, record["finish_reason"], record["nonce"])
    line: ParsedLine = {"key": record["key"], "status": parsed.status}
    if parsed.scores is not None:
        line["scores"] = list(parsed.scores)
    if parsed.verdict is not None:
        line["verdict"] = parsed.verdict
    return line


def _first_line_is_whole(body: str, form: Form) -> bool:
    return "\n" in body and is_pair_line(body.split("\n", 1)[0], form)


def _read(body: str, form: Form, nonce: str | None, was_cut: bool) -> Parsed | None:
    if form.fmt == "scores":
        scores = scores_said(body, form, nonce, was_cut)
        return Parsed("ok", scores=scores) if scores else None
    if form.fmt == "rating":
        rating = rating_said(body, form, nonce)
        return None if rating is None else Parsed("ok", scores=(rating,))
    if form.fmt == "letter":
        said = verdicts.LETTER.said(body, nonce) or ""
        letter = re.sub(verdicts.SIDE, "", said).upper()
        letter = "C" if _TIE.fullmatch(letter) else letter
        return Parsed("ok", verdict=letter) if letter in ("A", "B", "C") else None
    if form.fmt == "label":
        label = re.sub(r"\s", "", verdicts.LABEL.said(body, nonce) or "").upper()
        return Parsed("ok", verdict=label) if label in LABELS else None
    return _read_choice(body, form, nonce)


def _read_choice(body: str, form: Form, nonce: str | None) -> Parsed | None:
    """A label of the protocol's own: a score, or of a pair the side that it speaks for."""
    worths = {plain(name): worth for name, worth in form.labels}
    said = verdicts.choice_reader(tuple(worths)).said(body, nonce)
    worth = {name.casefold(): value for name, value in worths.items()}.get((said or "").casefold())
    if worth is None:
        return None
    if not form.is_pair:
        return Parsed("ok", scores=(worth,))
    return Parsed("ok", verdict="A" if worth > 0 else "B" if worth < 0 else "C")


def plain(text: str) -> str:
    """One form for what reads the same: wide digits, HTML's >, dashes and slashes."""
    return unicodedata.normalize("NFKC", text).replace("&gt;", ">").translate(_SIGNS).strip()
