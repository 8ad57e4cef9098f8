"""Where in a judge's text its own verdict stands, and where others' may be quoted.

tag-1 [[A]]                            after the tag that only this judge was given
----- END answer (tag-1) -----         the tag in brackets, as in the lines around an answer
It asks me to write "[[A]]".           a quotation
Final verdict: B                       the last line, alone
"""

import re

from apps.eval.protocols import words

_QUOTED = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\"[^\"\n]*\"|\u201c[^\u201d\n]*\u201d", re.DOTALL)
_STANDS = re.compile(
    r"(?:\A|[:\n](?:[-*] )?|\b(?:verdict|rating|score|choice) is)[\s*_]{0,9}"
    r"(?P<held>\[\[[^\[\]\n]{1,60}\]\])",
    re.IGNORECASE,
)
"""brackets where a verdict stands: at a line's start, behind a colon or `verdict is`; others may be
code"""
_SUPPOSING = re.compile(
    r"\b(?:(?:would|could|might) (?:be|have (?:been|said))\W*"
    rf"|(?:than|over|beats|against)[^\w.!?:;\n]*)\Z|(?:{words.IF})[^\n]{{0,12}}\Z",
    re.IGNORECASE,
)
_DENYING = re.compile(rf"(?<![a-z\u00c0-\u1fff])(?:{words.NOT})[ *_]*\Z", re.IGNORECASE)
"""before brackets; a sentence that ends in `over.` says nothing of the next one's"""
_BETWEEN = re.compile(rf"\W{{0,3}}(?:[,/<>=]|{words.OR}|{words.AND})\W{{0,3}}", re.IGNORECASE)


def without_quotations(body: str) -> str:
    return _QUOTED.sub(" ", body)


def last_line(body: str) -> str:
    return body.rstrip().rsplit("\n", 1)[-1]


def after_tag(body: str, nonce: str | None) -> list[tuple[str, bool]] | None:
    """[(what follows a tag, whether the tag is the judge's own)], the last first; None without one.

    A tag in brackets is taken for a quotation of the lines that stand around an answer.
    """
    if not nonce or nonce not in body:
        return None
    spots = [match.span() for match in re.finditer(re.escape(nonce), body)]
    return [
        (body[end:], not (body[:start].endswith("(") and body[end:].startswith(")")))
        for start, end in reversed(spots)
    ]


def head(tail: str) -> str:
    """The rest of the tag's line; if that says nothing, the next line where it is the last one."""
    lines = [line for line in tail.split("\n") if re.search(r"\w", line)]
    is_on_tags_line = bool(re.search(r"\w", tail.split("\n", 1)[0]))
    return lines[0] if lines and (is_on_tags_line or len(lines) == 1) else ""


def without_menus(body: str, bracketed: re.Pattern[str]) -> str:
    """A text without its lists of what a verdict may be, such as `[[A]], [[B]] or [[C]]`."""
    runs: list[list[re.Match[str]]] = []
    for match in bracketed.finditer(body):
        if runs and _BETWEEN.fullmatch(body[runs[-1][-1].end() : match.start()]):
            runs[-1].append(match)
        else:
            runs.append([match])
    for run in reversed(runs):
        if len({match[0].casefold() for match in run}) > 1:
            body = f"{body[: run[0].start()]} {body[run[-1].end() :]}"
    return body


def last_meant(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last match that no `not` denies; one only supposed counts where there is no other.

    `It would be [[10]] if correct.` and `[[C]] for a tie` suppose, as does what another is better
    than. None where brackets behind it hold something else, as in `At first [[A]]. Final verdict:
    [[neither]]`.
    """
    matches = all_said(pattern, text)
    meant = [match for match in matches if not _is_supposed(match, text)]
    if not meant and len({match[0].casefold() for match in matches}) != 1:
        return None
    last = (meant or matches)[-1]
    return None if holds_another(pattern, text[last.end() :]) else last


def holds_another(pattern: re.Pattern[str], text: str) -> bool:
    """Whether brackets in a text hold what is no verdict of this kind."""
    return any(not pattern.fullmatch(match["held"]) for match in _STANDS.finditer(text))


def all_said(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """The matches without those that are denied, as in `[[B]], not [[A]]`."""
    return [
        match
        for match in pattern.finditer(text)
        if not _DENYING.search(text[max(0, match.start() - 40) : match.start()])
        and not re.match(words.IS_NOT, text[match.end() :])
    ]


def _is_supposed(match: re.Match[str], text: str) -> bool:
    before, behind = text[max(0, match.start() - 40) : match.start()], text[match.end() :]
    return bool(
        _SUPPOSING.search(before)
        or re.match(r"\W{0,3}(?:if|when|unless|means|for (?:a )?tie)\b", behind, re.IGNORECASE)
        or re.match(rf"\s?(?:{words.WOULD_BE})", behind)
    )
