import asyncio


class Call:
    """What a Serve handle returns: awaitable, cancellable."""

    def __init__(self, coroutine) -> None:
        self._task = asyncio.ensure_future(coroutine)

    def __await__(self):
        return self._task.__await__()

    def cancel(self) -> None:
        self._task.cancel()
