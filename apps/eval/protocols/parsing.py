"""From a judge's text to a score or a verdict. Pure, versioned, and free to run again.

The raw text is never changed; `reparse` applies the current version to all of it. Whatever cannot
be read stays what it is (`unparsed`, `refused`, `truncated`): a failure never becomes a score.

What is read is a verdict's form (form.py): numbers on a scale, letters, labels.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import cast

from apps.eval.calls.lines import ParsedLine, ResponseLine, Status
from apps.eval.protocols.form import Form, Format
from apps.eval.protocols.json_verdict import rating_in, scores_in, verdict_in

PARSER_VERSION = "3"

# A sign makes a number that no scale has: it is read, so that it is not taken for another.
_NUMBER = r"(?<![\d.-])(-?\d{1,3}(?:\.\d+)?)"
_OUT_OF = r"(?:\s*/\s*10(?:\.0)?)?"
# Two numbers alone on a line: `9 8.5`, `9, 8`, `8/10 7/10`, `**(9, 8)**`, `Scores: 9 8`.
_PAIR_LINE = re.compile(
    rf"^\W*(?:(?:the )?(?:final )?scores?\W{{0,4}})?{_NUMBER}{_OUT_OF}"
    rf"(?:\s*[,;|&]\s*|\s+and\s+|\s+){_NUMBER}{_OUT_OF}\W*$",
    re.IGNORECASE,
)
# `Assistant 1: 8/10`, `**Assistant 2's score:** 7`; what follows must not make it a count.
_LABELLED = re.compile(
    rf"(?:assistant|answer|response|chatbot)\W{{0,3}}(1|2|a|b)\b(?:['\u2019]s)?"
    rf"\W{{0,3}}(?:score|rating)?\W{{0,3}}[:=|]\W{{0,4}}{_NUMBER}{_OUT_OF}(?![\d.]*\d)"
    r"(?=\s*(?:[\n(.,;*_)\]|]|points?\b|$))",
    re.IGNORECASE,
)
_TUPLE = re.compile(rf"[(\[]\s*{_NUMBER}{_OUT_OF}\s*,\s*{_NUMBER}{_OUT_OF}\s*[)\]]")
_RATING = re.compile(
    rf"\[\[\s*(?:rating\s*:?\s*)?(-?\d{{1,3}}(?:[.,]\d+)?){_OUT_OF}\s*\]\]", re.IGNORECASE
)
_RATING_WORD = re.compile(
    rf"\b(?:rating|score)\W{{0,6}}(?:is\W{{0,3}}|of\W{{0,3}})?{_NUMBER}{_OUT_OF}(?![\d.]*\d)"
    r"(?!\s*(?:out of|/)\s*(?!10\b)\d)",
    re.IGNORECASE,
)
_SIDE = r"(?:(?:assistant|answer|response|model)\s+)?"
_LABELS = r"A\s*>>\s*B|A\s*>\s*B|A\s*=\s*B|B\s*>\s*A|B\s*>>\s*A"
_LETTER = re.compile(rf"\[\[\s*{_SIDE}(A|B|C|tie|draw)\s*\]\]", re.IGNORECASE)
_LABEL = re.compile(rf"\[\[\s*({_LABELS})\s*\]\]", re.IGNORECASE)
# A verdict alone on the last line: `Winner: A`, `[B]`, `\boxed{A}`, `**Assistant A is better.**`
_ALONE = (
    r"\A\W*(?i:(?:(?:my|the)\s+)?(?:final\s+)?(?:verdict|winner|choice|decision|preference|judgment)"
    r"\W*(?:is\W*)?)?(?:\\boxed)?\W*"
)
_ALONE_LETTER = re.compile(
    rf"{_ALONE}(?i:{_SIDE})([ABC]|(?i:tie|draw))(?i:\s+(?:is\s+(?:the\s+)?(?:better|best|winner)|wins))?"
    r"\W*\Z"
)
_ALONE_LABEL = re.compile(rf"{_ALONE}({_LABELS})\W*\Z")
_TIES = ("c", "tie", "draw", "both", "equal")
_THINK = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.IGNORECASE | re.DOTALL)
# Some servers put the opening tag into the prompt, so that only the closing one comes back.
_CLOSED_THINK = re.compile(r"\A.*</(?:think|thinking|reasoning)>", re.IGNORECASE | re.DOTALL)
_OPEN_THINK = re.compile(r"<(think|thinking|reasoning)>", re.IGNORECASE)
_DASHES = {0x2212: "-", 0x2013: "-"}
_QUOTED = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\"[^\"\n]*\"|\u201c[^\u201d\n]*\u201d", re.DOTALL)
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable)|i (?:can(?:no|')t|won't|will not|must decline)"
    r"|as an ai\b|cannot (?:assist|comply|help))",
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
    if finish_reason == "content_filter":
        return Parsed("refused")
    was_cut = finish_reason == "length"
    body = _THINK.sub("", unicodedata.normalize("NFKC", text))
    body = body.replace("&gt;", ">").translate(_DASHES).strip()
    if not _PAIR_LINE.match(
        body.split("\n", 1)[0]
    ):  # a tag that a judge quotes later is no thought
        body = _CLOSED_THINK.sub("", body).strip()
    if _OPEN_THINK.search(body):
        return Parsed("truncated" if was_cut else "unparsed")
    # Where the verdict comes last, a text cut by the token limit holds at most a provisional one.
    if not was_cut or (form.fmt == "scores" and _first_line_is_whole(body)):
        parsed = _READERS[form.fmt](_on_ten(body, form), form, nonce, was_cut)
        if parsed:
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


def _first_line_is_whole(body: str) -> bool:
    return "\n" in body and bool(_PAIR_LINE.match(body.split("\n", 1)[0].strip()))


def _on_ten(body: str, form: Form) -> str:
    """`4/5` as the readers know it, `4/10`, where the scale ends at 5."""
    if form.high == 10:
        return body
    elsewhere = re.sub(r"/\s*10(?![\d.])", "/ ten", body)
    return re.sub(rf"/\s*{form.high:g}(?:\.0)?(?![\d.]*\d)", "/10", elsewhere)


def _in_range(numbers: tuple[str, ...], form: Form) -> tuple[float, ...] | None:
    values = tuple(float(number.replace(",", ".")) for number in numbers)
    return values if all(form.lowest_read <= value <= form.high for value in values) else None


def _read_scores(body: str, form: Form, nonce: str | None, was_cut: bool) -> Parsed | None:
    """First line `N N`; else the last `Assistant k: N`; else the last `(N, N)` or last line."""
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    candidates = [match.groups() for line in lines[:1] if (match := _PAIR_LINE.match(line))]
    if not candidates and not was_cut:
        candidates += _labelled_scores(body)
        candidates += [match.groups() for match in [*_TUPLE.finditer(body)][-1:]]
        candidates += [match.groups() for line in lines[-1:] if (match := _PAIR_LINE.match(line))]
        candidates += [scores for scores in [scores_in(body)] if scores]
    # Only the first form found counts: falling through an out-of-scale score would pick up noise.
    scores = _in_range(candidates[0], form) if candidates else None
    return Parsed("ok", scores=scores) if scores else None


def _labelled_scores(body: str) -> list[tuple[str, ...]]:
    last: dict[str, str] = {}
    for match in _LABELLED.finditer(body):
        last["1" if match[1].lower() in "1a" else "2"] = match[2]
    return [(last["1"], last["2"])] if len(last) == 2 else []


def _read_rating(body: str, form: Form, nonce: str | None, was_cut: bool) -> Parsed | None:
    rating = _last(_RATING, body, nonce) or rating_in(body) or _last(_RATING_WORD, body, nonce)
    scores = _in_range((rating,), form) if rating else None
    return Parsed("ok", scores=scores) if scores else None


def _read_letter(body: str, form: Form, nonce: str | None, was_cut: bool) -> Parsed | None:
    said = _last(_LETTER, body, nonce) or _alone(_ALONE_LETTER, body) or verdict_in(body)
    words = re.sub(_SIDE, "", said.lower()) if said else ""
    if words in _TIES:
        return Parsed("ok", verdict="C")
    return Parsed("ok", verdict=words.upper()) if words in ("a", "b") else None


def _read_label(body: str, form: Form, nonce: str | None, was_cut: bool) -> Parsed | None:
    said = _last(_LABEL, body, nonce) or _alone(_ALONE_LABEL, body) or verdict_in(body)
    label = re.sub(r"\s", "", said).upper() if said else ""
    return Parsed("ok", verdict=label) if re.fullmatch(_LABELS, label) else None


def _read_choice(body: str, form: Form, nonce: str | None, was_cut: bool) -> Parsed | None:
    """A label of the protocol's own: a score, or of a pair the side that it speaks for."""
    names = "|".join(re.escape(name) for name, _ in form.labels)
    bracketed = re.compile(rf"\[\[\s*({names})\s*\]\]", re.IGNORECASE)
    alone = re.compile(rf"{_ALONE}((?i:{names}))\W*\Z")
    said = _last(bracketed, body, nonce) or _alone(alone, body) or verdict_in(body)
    worth = {name.casefold(): value for name, value in form.labels}.get((said or "").casefold())
    if worth is None:
        return None
    if not form.is_pair:
        return Parsed("ok", scores=(worth,))
    return Parsed("ok", verdict="A" if worth > 0 else "B" if worth < 0 else "C")


def _alone(pattern: re.Pattern[str], body: str) -> str | None:
    match = pattern.match(body.rsplit("\n", 1)[-1])
    return match[1] if match else None


def _last(pattern: re.Pattern[str], body: str, nonce: str | None) -> str | None:
    """The first match after the nonce; else the last outside quotations; else on the last line.

    A judge that quotes an answer's planted `[[A]]` is thereby not read as having said it.
    """
    if nonce and nonce in body:
        tagged = pattern.findall(body[body.rindex(nonce) :])
        if tagged:
            return tagged[0]
    outside = pattern.findall(_QUOTED.sub(" ", body))
    if outside:
        return outside[-1]
    last_line = body.rsplit("\n", 1)[-1]
    return next(iter(pattern.findall(last_line)[-1:]), None)


_READERS = {
    "scores": _read_scores,
    "rating": _read_rating,
    "letter": _read_letter,
    "label": _read_label,
    "choice": _read_choice,
}
