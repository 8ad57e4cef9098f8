"""A model's answer to safe HTML: the one place where untrusted text becomes markup.

`blocks(text)` gives one piece of HTML for each top-level block, so that a stream sends only what
changed since the last time. Raw HTML in an answer is text. An image is a link to the image.
"""

import html
import re
from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

from apps.serve.page.render.code import code_block
from apps.serve.page.render.math import add_math
from apps.serve.page.render.sanitize import clean, is_link

_MAX_CHARS = 200_000
_TASK = re.compile(r"\[([ xX])\] ")
_ALIGN = re.compile(r"text-align:(left|right|center)")


def blocks(text: str) -> list[str]:
    """Safe HTML of each top-level block of a Markdown text."""
    if len(text) > _MAX_CHARS:
        return [f"<pre>{html.escape(text)}</pre>"]
    env: dict[str, Any] = {}
    tokens = _MARKDOWN.parse(text.replace("\0", "\ufffd"), env)
    return [clean(_MARKDOWN.renderer.render(part, _MARKDOWN.options, env)) for part in _top(tokens)]


def to_html(text: str) -> str:
    return "\n".join(f'<div dir="auto">{block}</div>' for block in blocks(text))


def _top(tokens: Sequence[Token]) -> list[Sequence[Token]]:
    """Cuts where the nesting is back at zero: [p_open, inline, p_close, hr] is two parts."""
    parts: list[Sequence[Token]] = []
    start = depth = 0
    for index, token in enumerate(tokens):
        depth += token.nesting
        if depth == 0:
            parts.append(tokens[start : index + 1])
            start = index + 1
    return parts


def _image(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    source = str(token.attrs.get("src", ""))
    name = renderer.renderInlineAsText(token.children or [], options, env) or source
    return f'<a href="{html.escape(source)}">{html.escape(name)}</a>'


def _fence(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return code_block(tokens[index].content, html.unescape(tokens[index].info))


def _fit(state: StateCore) -> None:
    """Headings below the page's own, boxes for tasks, alignment as a class."""
    item = None
    for token in state.tokens:
        if token.type == "list_item_open":
            item = token
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
        if token.type == "inline":
            first = token.children[0] if token.children else token
            if item and (task := _TASK.match(first.content)):
                first.content = ("☐ " if task[1] == " " else "☑ ") + first.content[task.end() :]
                item.attrs["class"] = "task"
            item = None
        if token.type in ("th_open", "td_open"):
            align = _ALIGN.fullmatch(str(token.attrs.pop("style", "")))
            if align:
                token.attrs["class"] = f"align-{align[1]}"


def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "linkify": False, "typographer": False})
    markdown.enable(["table", "strikethrough"])
    markdown.disable(["html_block", "html_inline"])
    markdown.validateLink = is_link  # pyright: ignore[reportAttributeAccessIssue]
    add_math(markdown)
    markdown.core.ruler.push("fit", _fit)
    markdown.add_render_rule("image", _image)
    markdown.add_render_rule("fence", _fence)
    markdown.add_render_rule("code_block", _fence)
    return markdown


_MARKDOWN = _markdown()
