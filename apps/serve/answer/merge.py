"""Several answers at once, as they come."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

T = TypeVar("T")


class _End:
    """One of them has come to its end."""


async def merged(
    sources: Sequence[AsyncGenerator[T, None]], untaken: list[T] | None = None
) -> AsyncGenerator[T, None]:
    """What all of them yield; the first error ends all, and so does leaving early. What they had
    yielded by then is put into `untaken`."""
    queue: asyncio.Queue[T | Exception | _End] = asyncio.Queue()
    tasks = [asyncio.create_task(_pump(source, queue)) for source in sources]
    num_open = len(tasks)
    try:
        while num_open:
            item = await queue.get()
            if isinstance(item, _End):
                num_open -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item
    finally:
        while untaken is not None and not queue.empty():
            item = queue.get_nowait()
            if not isinstance(item, Exception | _End):
                untaken.append(item)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(
    source: AsyncGenerator[T, None], queue: "asyncio.Queue[T | Exception | _End]"
) -> None:
    try:
        async with contextlib.aclosing(source):
            async for item in source:
                queue.put_nowait(item)
    except Exception as error:
        queue.put_nowait(error)
    else:
        queue.put_nowait(_End())
