"""Whether a message is page markup, and whether it can be parsed without a hang."""

import re
from typing import Literal

from apps.data.html import evidence

Html = Literal["auto", "always", "never"]
MAX_BYTES = 8 << 20
"""A longer message is refused: 20 times the longest answer a chat page ever rendered."""
MAX_DEPTH = 200
"""Nested elements; pages reach about 30, and Lexbor's parse time grows with the square."""

_SMALL_TREE = 1000
"""Tags; so few parse fast however deep they nest."""

_MARKUP = re.compile(r"</?[a-zA-Z]|&#?\w+;")
"""Without any, text reads the same as HTML."""
_COUNTER = re.compile(r"\s*(?:\d+ / \d+\s*)?")
_HEAD = re.compile(r"<(?:div|p|ol|ul|pre|h[1-6]|table|blockquote|hr)(?:[\s/][^<]*)?>")
_ANSWER_WRAPPER = re.compile(r'<div[^<>]{0,80}\bclass="(?:[^"]* )?markdown[ "]')
_SAID_BEFORE = re.compile(r'[^<>`\n]{1,200}(?=<div[^<>]{0,80}\bclass="[^"]*\bmarkdown prose\b)')
_USER_WRAPPER = re.compile(
    r'\s*<div[^<>]{0,80}\bclass="[^"]*\b(?:markdown|whitespace-pre-wrap|break-words)\b'
)
_OPEN_OR_CLOSE = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9-]*)")
_EMPTY_TAGS = "area base br col embed hr img input link meta source track wbr"
_DRAWING_TAGS = "path circle rect line polyline polygon"
_CLOSED_BY_SUCCESSOR_TAGS = "p li td th tr dt dd option thead tbody tfoot"
_NOT_NESTING = frozenset(
    [*_EMPTY_TAGS.split(), *_DRAWING_TAGS.split(), *_CLOSED_BY_SUCCESSOR_TAGS.split()]
)


class HtmlRefused(ValueError):
    """Too long or too deep; `reason` says which."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decided(text: str, *, by_assistant: bool, html: Html, asked: str = "") -> bool:
    """Whether to read a message as HTML under a setting of the user; `asked` is the question."""
    if html == "auto":
        return is_html(text, by_assistant=by_assistant, asked=asked)
    return html == "always" and by_assistant and _MARKUP.search(text) is not None


def is_html(text: str, *, by_assistant: bool, asked: str = "") -> bool:
    """Whether a message is page markup, from its own content.

    An answer is when the page's wrapper opens it, or when all of it looks rendered. People paste
    HTML and ask about it, so a user's text is only when the page's own message wrapper encloses all
    of it.
    """
    if "<" not in text:
        return False
    if not by_assistant:
        return _USER_WRAPPER.match(text) is not None and text.rstrip().endswith("</div>")
    start = _COUNTER.match(text).end()  # type: ignore[union-attr]
    if _HEAD.match(text, start) is None:
        return _SAID_BEFORE.match(text) is not None and text.rstrip().endswith("</div>")
    if len(text) > MAX_BYTES or _ANSWER_WRAPPER.match(text, start) is not None:
        return True
    return evidence.is_page(text[start:], asked)


def check_size(html: str) -> None:
    """Raises HtmlRefused."""
    if len(html) > MAX_BYTES:
        raise HtmlRefused("html-too-long")
    if html.count("<") > _SMALL_TREE and _depth(html) > MAX_DEPTH:
        raise HtmlRefused("html-too-deep")


def _depth(html: str) -> int:
    depth = deepest = 0
    for closing, tag in _OPEN_OR_CLOSE.findall(html):
        if tag in _NOT_NESTING:
            continue
        depth = max(0, depth - 1) if closing else depth + 1
        deepest = max(deepest, depth)
    return deepest
