"""A verdict in numbers: two scores, or one rating, on the scale that was asked for.

A number of another scale (`4/5` where 10 is the highest, `4 on a 5-point scale`) and a range
(`7-8`, `Score (1-10)`) are no verdict. Ratings that disagree are none either, unless one is called
the overall or final one: what is left unread is asked for again, what is misread stays.
"""

import re
from collections.abc import Iterable, Sequence

from apps.eval.protocols import words
from apps.eval.protocols.form import Form
from apps.eval.protocols.json_verdict import closing_json, rating_in, scores_in
from apps.eval.protocols.number_patterns import Patterns, patterns
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

_SUPPOSED = re.compile(
    r"\b(?:consider(?:ed|ing)?|tempted|reach|would (?:need|require|be|have)|might|could|if|unless"
    r"|to (?:get|earn|merit|deserve))\b",
    re.IGNORECASE,
)
_SCORE_IN_BRACKETS = re.compile(r"[(\[]\d+(?:[.,]\d+)?[)\]]")
_STATED = re.compile(r"[:=|\n]|\bis\b", re.IGNORECASE)


def is_pair_line(line: str, form: Form) -> bool:
    return bool(patterns(form).pair_line.match(line.strip()))


def scores_said(
    body: str, form: Form, nonce: str | None, was_cut: bool
) -> tuple[float, float] | None:
    """Two scores in displayed order; of a text that was cut, those of its first line alone.

    After the tag; else the first line `N N`, the last one, closing JSON, both `Assistant k: N`, the
    last `(N, N)`. Only the first form found counts: another would pick up noise.
    """
    form_patterns = patterns(form)
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    for tail, _ in () if was_cut else after_tag(body, nonce) or ():
        if found := form_patterns.pair_line.match(head(tail)):
            return _pair(found, form)
    if found := form_patterns.pair_line.match(lines[0]) if lines else None:
        return _pair(found, form)
    if was_cut or not lines:
        return None
    if found := form_patterns.pair_line.match(lines[-1]):
        return _pair(found, form)
    if written := scores_in(body):
        return _both(*(_written(form_patterns, number, form) for number in written))
    if labelled := _labelled(form_patterns, body):
        return _both(*(_score(match, "first", form) for match in labelled))
    tuples = [
        match
        for match in form_patterns.in_brackets.finditer(body)
        if not _names_the_scale(match, body, form)
    ]
    # `(8,5)` is one score where others stand in brackets of their own.
    others = _SCORE_IN_BRACKETS.findall(body)
    if tuples and len({*others}) > 1 and tuples[-1][0] in others:
        return None
    return _pair(tuples[-1], form) if tuples else None


def rating_said(body: str, form: Form, nonce: str | None) -> float | None:
    form_patterns = patterns(form)
    tails = after_tag(body, nonce)
    body = without_menus(body, form_patterns.bracketed)
    if tails is None:
        return _untagged_rating(form_patterns, body, form)
    for tail, _ in tails:
        said = head(without_menus(tail, form_patterns.bracketed))
        if match := form_patterns.tagged.match(said):
            return _score(match, "number", form)
    own = [without_menus(tail, form_patterns.bracketed) for tail, is_own in tails if is_own]
    if own and (said := all_said(form_patterns.bracketed, first := head(own[0]))):
        is_first = not holds_another(form_patterns.bracketed, first[: said[0].start()])
        return _score(said[0], "number", form) if is_first else None
    closing = closing_json(body)
    if nonce and nonce in closing:
        return _written(form_patterns, rating_in(closing), form)
    return _untagged_rating(form_patterns, own[0] if own else body, form)


def _untagged_rating(form_patterns: Patterns, body: str, form: Form) -> float | None:
    outside, line = without_quotations(body), last_line(body)
    if (match := form_patterns.tagged.match(body)) and not re.search(r"\w", body[match.end() :]):
        return _score(match, "number", form)  # the number alone, as one's own rubric may ask
    if (match := form_patterns.closing.match(line)) and line in outside:
        return _score(match, "number", form)
    if written := rating_in(closing_json(body)):
        return _written(form_patterns, written, form)
    if match := last_meant(form_patterns.bracketed, outside):
        return _score(match, "number", form)
    if written := rating_in(body):
        return _written(form_patterns, written, form)
    if agreed := _agreed(form_patterns, outside, form):
        return agreed[0]
    if match := last_meant(form_patterns.bracketed, line):
        return _score(match, "number", form)
    if agreed := _agreed(form_patterns, line, form):
        return agreed[0]
    match = form_patterns.noted.match(line) if line in outside else None
    return _score(match, "number", form) if match else None


def _agreed(form_patterns: Patterns, text: str, form: Form) -> tuple[float | None] | None:
    """The score that the ratings in words agree on, (None,) if on none; None without a rating.

    An overall or final rating comes first, then `Rating: 8` at the start of its line. After these
    come `Clarity rating: 8` and `a score of 8`. `A score of 10 would need...` only supposes one.
    """
    ranks: list[list[float]] = [[], [], [], []]
    for match in form_patterns.overall.finditer(text):
        _add(ranks[0], match, form)
    for match in form_patterns.word.finditer(text):
        if not _STATED.search(match["link"]):
            if not _SUPPOSED.search(_sentence(match, text)):
                _add(ranks[0 if match["final"] else 3], match, form)
        elif match["final"]:
            _add(ranks[0], match, form)
        else:
            _add(ranks[1 if _begins_line(match, text) else 2], match, form)
    said = next((rank for rank in ranks if rank), None)
    if said is None:
        return None
    is_one_score = len(set(said)) == 1 and form.lowest_read <= said[0] <= form.high
    return (said[0] if is_one_score else None,)


def _add(said: list[float], match: re.Match[str], form: Form) -> None:
    """Adds a rating of this scale; one off its ends too, so that it is not overlooked."""
    if _is_of(match, ("of", "scale"), form):
        said.append(_value(match["number"]))


def _sentence(match: re.Match[str], text: str) -> str:
    """Of a mention, with at most 200 letters before it and behind it."""
    before = text[max(0, match.start() - 200) : match.start()]
    behind = text[match.end() : match.end() + 200]
    begun, ended = re.split(r"[.!?]\s|\n", before)[-1], re.split(r"[.!?](?:\s|\Z)|\n", behind)[0]
    return begun + match[0] + ended


def _labelled(form_patterns: Patterns, body: str) -> Sequence[re.Match[str]]:
    """The last of either assistant, of those that begin a line where both do."""
    matches = [*form_patterns.labelled.finditer(body)]
    leading = [match for match in matches if _begins_line(match, body)]
    for some in (leading, matches):
        last = {"1" if match["who"].lower() in "1a" else "2": match for match in some}
        if len(last) == 2:
            return (last["1"], last["2"])
    return ()


def _begins_line(match: re.Match[str], text: str) -> bool:
    """Whether no word stands before it on its line."""
    return not re.search(r"\w", text[: match.start()].rsplit("\n", 1)[-1])


def _names_the_scale(match: re.Match[str], body: str, form: Form) -> bool:
    """`Scale: [1, 10]`"""
    ends = (float(match["first"]), float(match["second"]))
    start = body.rfind("\n", 0, match.start()) + 1
    line = body[start:].split("\n", 1)[0]
    named = re.search(rf"(?<![a-z])(?:{words.SCALE})", line, re.IGNORECASE)
    return ends in ((form.low, form.high), (0.0, form.high)) and bool(named)


def _pair(match: re.Match[str], form: Form) -> tuple[float, float] | None:
    if not _is_of(match, ("scale",), form):
        return None
    return _both(_score(match, "first", form), _score(match, "second", form))


def _both(first: float | None, second: float | None) -> tuple[float, float] | None:
    return None if first is None or second is None else (first, second)


def _score(match: re.Match[str], number: str, form: Form) -> float | None:
    """A score of this scale, or None."""
    denominators = ("of", "scale") if number == "number" else (f"{number}_of",)
    return _in_range(match[number], form) if _is_of(match, denominators, form) else None


def _is_of(match: re.Match[str], names: Iterable[str], form: Form) -> bool:
    groups = match.groupdict()
    return all(float(groups.get(name) or form.high) == form.high for name in names)


def _written(form_patterns: Patterns, text: str | None, form: Form) -> float | None:
    """The score in a field of JSON: `8`, `"8,5"`, `"8/10"`."""
    match = form_patterns.tagged.match(text or "")
    is_whole = match and not re.search(r"\w", match.string[match.end() :])
    return _score(match, "number", form) if match and is_whole else None


def _in_range(number: str | None, form: Form) -> float | None:
    value = None if number is None else _value(number)
    return value if value is not None and form.lowest_read <= value <= form.high else None


def _value(number: str) -> float:
    """`7,5` is 7.5 and `0,125` .125; `3,500` is 3500, on whatever scale."""
    if re.fullmatch(r"-?[1-9]\d{0,2}(?:,\d{3})+", number):
        return float(number.replace(",", ""))
    return float(number.replace(",", ".")) if number.count(",") < 2 else float("nan")
