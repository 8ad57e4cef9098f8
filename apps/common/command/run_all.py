"""Many coroutines at once, of which the first error ends all."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import cast

from apps.common.errors import CriaError


async def run_all(coroutines: Iterable[Coroutine[object, object, None]]) -> None:
    """Runs all at once; the first error cancels the rest and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except BaseExceptionGroup as errors:
        first: BaseException = errors.split(CriaError)[0] or errors
        while isinstance(first, BaseExceptionGroup):
            first = cast(BaseExceptionGroup[BaseException], first).exceptions[0]
        raise first from None
