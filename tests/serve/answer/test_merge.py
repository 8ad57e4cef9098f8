"""Several answers as they come, and what of them nobody took."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from apps.serve.answer.merge import merged


async def counted(name: str, closed: list[str]) -> AsyncGenerator[str, None]:
    """Three pieces at once; then it waits until it is closed."""
    try:
        for number in range(3):
            yield f"{name}{number}"
        await asyncio.Event().wait()
    finally:
        closed.append(name)


async def test_what_nobody_took_is_told_in_its_order_and_its_sources_are_closed() -> None:
    untaken, closed = list[str](), list[str]()
    sources = [counted("a", closed), counted("b", closed)]
    async with contextlib.aclosing(merged(sources, untaken)) as pieces:
        first = await anext(pieces)
    for name in "ab":
        said = [piece for piece in (first, *untaken) if piece.startswith(name)]
        assert said == [f"{name}{number}" for number in range(3)]
    assert sorted(closed) == ["a", "b"]
