"""Backslashes that a converter put before marks which need none, taken away again.

Published dumps were made with a converter that writes every `_` and `*` of a text as `\\_` and
`\\*`. A message shows by itself that it is such: no mark of that kind stands in its prose without a
backslash, one stands where nobody writes one (within a word, between blanks or digits), no other
backslash is there, and it renders the same without them. Code and TeX are left alone.

    the file my\\_long\\_name.txt has 3 \\* 4 lines   ->   the file my_long_name.txt has 3 * 4 lines
    \\*not italic\\*, C:\\_tmp, $a\\_1$, `a\\_b`         ->   unchanged
"""

import functools
import re

from markdown_it import MarkdownIt

from apps.data.read.records import Record
from apps.data.rules.profiles import Rules
from apps.data.rules.verdict import Verdict

_LAYOUTS = frozenset(("sharegpt",))
"""The layouts whose published dumps are known to have them."""
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_KEPT_AS_IT_IS = re.compile(
    r"(?ms)^ {0,3}(?P<fence>`{3,}|~{3,}).*?(?:^ {0,3}(?P=fence)[`~]*[ \t]*$|\Z)"
    r"|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)"
    r"|\$\$.+?\$\$|\\\[.+?\\\]|\\\(.+?\\\)|\$[^$\n]+\$"
)
_NEEDLESS = re.compile(r"\w\\_\w|(?<= )\\\*(?= )|\d\\\*\d")
_BARE = re.compile(r"\w_\w|(?<= )\*(?= )(?<!^)|\d\*\d")
_REAL_BACKSLASH = re.compile(r"\\(?:[^!-/:-@\[-`{-~]|[\\%&{}]|\Z)|:\\")
"""No converter escapes a percent sign or a brace: those are TeX's, SQL's or an expression's."""
_BULLET = re.compile(r"(?m)^[ \t]*\*(?= )")


def escapes(record: Record, rules: Rules) -> Verdict:
    if rules.escapes != "undo" or record.layout not in _LAYOUTS:
        return None
    turns = [
        turn.with_text(undone(turn.text)) if turn.role == "assistant" and not turn.is_page else turn
        for turn in record.turns
    ]
    return turns if any(a is not b for a, b in zip(turns, record.turns, strict=True)) else None


def undone(text: str) -> str:
    """The text without needless backslashes, or as it was."""
    if "\\_" not in text and "\\*" not in text:
        return text
    pieces = _pieces(text)
    prose = "\n".join(piece for is_prose, piece in pieces if is_prose)
    bare = _BULLET.sub("", _ESCAPED.sub("", prose))
    if (
        _NEEDLESS.search(prose) is None
        or _REAL_BACKSLASH.search(prose) is not None
        or _BARE.search(bare) is not None
    ):
        return text
    rendered = _markdown().render(text)
    for marks in dict.fromkeys("<>" if mark in "<>" else mark for mark in _ESCAPED.findall(prose)):
        escaped = re.compile(rf"\\([{re.escape(marks)}])")
        without = "".join(
            escaped.sub(r"\1", piece) if is_prose else piece for is_prose, piece in pieces
        )
        if _markdown().render(without) == rendered:
            text, pieces = without, _pieces(without)
    return text


def _pieces(text: str) -> list[tuple[bool, str]]:
    """Prose, and between it code and TeX, in order."""
    pieces: list[tuple[bool, str]] = []
    end = 0
    for match in _KEPT_AS_IT_IS.finditer(text):
        pieces += [(True, text[end : match.start()]), (False, match[0])]
        end = match.end()
    return [*pieces, (True, text[end:])]


@functools.cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"])
