"""Marks of sources in the answers of ChatGPT's export, which its page shows as links.

It is 8,849 m \\ue200cite\\ue202turn0search1\\ue201.      ->  It is 8,849 m.
\\ue200url\\ue202The peak\\ue202turn0search1\\ue201       ->  The peak
\\ue200entity\\ue202["place","Linz","Austria"]\\ue201     ->  Linz
It is 8,849 m\\u30104\\u2020source\\u3011.                ->  It is 8,849 m.
"""

import re

from apps.data.read.record.layout import list_of
from apps.data.read.record.parse import parse

_MARK = re.compile(r"([ \t]*)\ue200([a-z_]+)([^\ue200\ue201]*)\ue201")
_BRACKETS = re.compile(r"[ \t]*\u3010\d+(?::\d+)?\u2020[^\u3010\u3011\n]*\u3011")
_BETWEEN = "\ue202"


def without_citations(text: str) -> str:
    """The text as a reader of the page has it."""
    if "\ue200" in text:
        text = _MARK.sub(_shown, text)
    return _BRACKETS.sub("", text) if "\u3010" in text else text


def _shown(mark: re.Match[str]) -> str:
    """What a mark shows in the line of the text; the blanks before it go with one that is gone."""
    blanks, kind, given = mark[1], mark[2], mark[3]
    parts = given.split(_BETWEEN)[1:]
    label = ""
    if kind in ("url", "link") and len(parts) > 1:
        label = parts[0]
    if kind == "entity" and parts:
        named = list_of(parse(parts[0])) or []
        label = str(named[1]) if len(named) > 1 else ""
    return f"{blanks}{label}" if label else ""
