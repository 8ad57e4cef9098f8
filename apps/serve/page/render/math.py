"""LaTeX of an answer to MathML, which browsers draw themselves: no script, no font, no image."""

import html
import re
from collections.abc import Sequence
from typing import Any

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.texmath import texmath_plugin

_MAX_CHARS = 4_000
_MAX_DEPTH = 60
_NUMBERED = re.compile(r"\\(begin|end)\{(align|gather|equation|alignat|eqnarray)\}")
_INLINE = ("math_inline", "math_single")
_RULES = (
    *_INLINE,
    "math_inline_double",
    "math_block",
    "math_block_eqno",
    "math_block_label",
    "amsmath",
)


def add_math(markdown: MarkdownIt) -> None:
    r"""Teach it `$`, `$$`, `\(`, `\[` and the AMS environments; prices stay prices.

    A dollar opens or closes a formula only where no space stands inside and no digit outside:
    "from $5 to $10" has none.
    """
    markdown.use(texmath_plugin, delimiters="brackets")
    markdown.inline.ruler.before("escape", "math_bracket", _bracket)
    markdown.use(dollarmath_plugin, allow_space=False, allow_digits=False, double_inline=True)
    markdown.use(amsmath_plugin)
    for rule in _RULES:
        markdown.add_render_rule(rule, _rule)


def _bracket(state: StateInline, silent: bool) -> bool:
    r"""`\[x\]` in the middle of a paragraph; the plugin knows it on lines of its own only."""
    if not state.src.startswith(r"\[", state.pos):
        return False
    end = state.src.find(r"\]", state.pos + 2)
    if end < 0 or not state.src[state.pos + 2 : end].strip():
        return False
    if not silent:
        token = state.push("math_inline_double", "math", 0)
        token.content = state.src[state.pos + 2 : end]
    state.pos = end + 2
    return True


def _rule(renderer: object, tokens: Sequence[Any], index: int, *_: object) -> str:
    token = tokens[index]
    drawn = math(token.content, is_block=token.type not in _INLINE)
    return f"<p>{drawn}</p>" if token.block else drawn


def math(latex: str, is_block: bool) -> str:
    """MathML, or the source as code where it is no LaTeX that we know."""
    source = latex.strip()
    plain = f"<code>{html.escape(source)}</code>"
    if not source or len(source) > _MAX_CHARS or _depth(source) > _MAX_DEPTH:
        return plain
    try:
        return convert(_known(source), display="block" if is_block else "inline")
    except Exception:  # its parser raises many kinds; the text must be shown whatever it is
        return plain


def _known(source: str) -> str:
    """Environments that differ in numbering only are one to us."""
    return re.sub(
        r"\\(begin|end)\{(align|gather|equation|alignat|eqnarray)\}", r"\\\1{\2*}", source
    )


def _depth(source: str) -> int:
    depth = deepest = 0
    for char in source:
        depth += (char == "{") - (char == "}")
        deepest = max(deepest, depth)
    return deepest
