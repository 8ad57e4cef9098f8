"""Numbered lists that begin again at 1 in the middle, and the repair of them."""

import re
from dataclasses import dataclass

_ITEM = re.compile(r"( {0,3})(\d{1,9})([.)] )")


@dataclass(slots=True)
class _Last:
    """The item before: its indent, its number, and the number it should have."""

    indent: str
    number: int
    right: int


def restart(text: str) -> str:
    """The line of the first item numbered 1 that follows one numbered 1, or nothing.

    Only the first one's own lines and fenced code lie between.
    """
    return _walked(text)[1]


def renumbered(text: str) -> str:
    """The lists numbered on; a text in which that mends nothing stays.

    1. Install it.        1. Install it.
    ```sh                 ```sh
    make                  make
    ```            ->     ```
    1. Run it.            2. Run it.
    2. Stop it.           3. Stop it.
    """
    lines, first = _walked(text)
    if not first:
        return text
    mended = "\n".join(lines)
    return text if restart(mended) else mended


def _walked(text: str) -> tuple[list[str], str]:
    """The lines numbered on, and the first that had to be."""
    if "\n1. " not in text and "\n1) " not in text:
        return [], ""
    lines = text.split("\n")
    last: _Last | None = None
    first, fence = "", ""
    for i, line in enumerate(lines):
        mark = line.lstrip()[:3]
        if fence or mark in ("```", "~~~"):
            fence = ("" if fence else mark) if mark == (fence or mark) else fence
            continue
        item = _ITEM.match(line)
        if item is not None:
            last = _next(last, item[1], int(item[2]))
            if last.number == 1 and last.right > 1:
                first = first or line[:80]
            if last.right != last.number:
                lines[i] = f"{item[1]}{last.right}{item[3]}{line[item.end() :]}"
        elif line and not line.startswith(("   ", "\t")):
            last = None  # a paragraph between: the next list may start at 1 again
    return lines, first


def _next(last: _Last | None, indent: str, number: int) -> _Last:
    goes_on = (
        last is not None
        and last.indent == indent
        and (number == last.number == 1 or (number == last.number + 1 and last.right > last.number))
    )
    return _Last(indent, number, last.right + 1 if goes_on and last is not None else number)
