"""Numbered lists that begin again at 1 in the middle, and the repair of them."""

import re
from dataclasses import dataclass

_ITEM = re.compile(r"( {0,3})(\d{1,9})([.)] )")

_FENCE = re.compile(r"[ \t]*(`{3,}(?=[^`]*\Z)|~{3,})(.*)", re.DOTALL)
"""It opens code to the next one of as many marks at least, with nothing behind it."""


@dataclass(slots=True)
class _Item:
    """An item of a list: its indent, its number, and the number that would go on with the list."""

    indent: str
    number: int
    expected: int


def restart(text: str) -> str:
    """The line of the first item numbered 1 that goes on with a list, or "" without one.

    Only the first one's own lines and fenced code lie between.
    """
    return _renumber(text)[1]


def renumbered(text: str) -> str:
    """The lists numbered on; a text in which that mends nothing stays.

    1. Install it.        1. Install it.
    ```sh                 ```sh
    make                  make
    ```            ->     ```
    1. Run it.            2. Run it.
    2. Stop it.           3. Stop it.
    """
    lines, first = _renumber(text)
    if not first:
        return text
    mended = "\n".join(lines)
    return text if restart(mended) else mended


def _renumber(text: str) -> tuple[list[str], str]:
    """The lines numbered on, and the start of the first item 1 that had to be another number."""
    if "\n1. " not in text and "\n1) " not in text:
        return [], ""
    lines = text.split("\n")
    last: _Item | None = None
    first, fence = "", ""
    for i, line in enumerate(lines):
        mark = _FENCE.match(line)
        if fence:
            fence = "" if mark and mark[1].startswith(fence) and not mark[2].strip() else fence
            continue
        if mark:
            fence = mark[1]
            continue
        item = _ITEM.match(line)
        if item is not None:
            last = _next(last, item[1], int(item[2]))
            if last.number == 1 and last.expected > 1:
                first = first or line[:80]
            if last.expected != last.number:
                lines[i] = f"{item[1]}{last.expected}{item[3]}{line[item.end() :]}"
        elif line and not line.startswith(("   ", "\t")):
            last = None  # a paragraph between: the next list may start at 1 again
    return lines, first


def _next(last: _Item | None, indent: str, number: int) -> _Item:
    """The item after `last`; it goes on with its list, or begins another."""
    if last is None or last.indent != indent:
        return _Item(indent, number, number)
    both_one = number == last.number == 1
    counts_on = number == last.number + 1 and last.expected > last.number
    return _Item(indent, number, last.expected + 1 if both_one or counts_on else number)
