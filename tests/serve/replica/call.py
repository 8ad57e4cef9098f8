import asyncio
from typing import Self


class Call:
    """What a Serve handle returns: awaitable, cancellable."""

    def __init__(self, coroutine) -> None:
        self._task = asyncio.ensure_future(coroutine)

    def __await__(self):
        return self._task.__await__()

    def cancel(self) -> None:
        self._task.cancel()


class ServeHandle:
    """One whose method `generate` is its own `remote`; where a conversation goes is up to it."""

    def options(self, session_id: str) -> Self:
        return self

    @property
    def generate(self) -> Self:
        return self
