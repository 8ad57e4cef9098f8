"""Which members of a pool a request is given to, one after another."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

from apps.serve.errors import ApiError
from apps.serve.gateway.attempt import MemberLostError, MemberRefusedError
from apps.serve.model.pool import Member, PoolEntry

MAX_FRUITLESS = 4
"""failures in a row without anything new for the client"""
_LOOK_S = 0.05
"""between two looks whether a member has come up"""


class Turns:
    def __init__(self, pool: PoolEntry) -> None:
        self._pool = pool
        self._full: set[Member] = set()
        self._told: ApiError | None = None
        self._fruitless = 0

    async def next(self, or_else: ApiError | None = None) -> Member:
        """Waits while none is up. Raises ApiError when that takes too long and when all are full.

        `or_else` asks for a member that goes on with a text that has begun, and is raised where the
        pool has none.
        """
        patience_s = self._pool.config.limits.queue_timeout_s
        begin_s = time.monotonic()
        while (member := self._pool.choose(self._full, or_else is not None)) is None:
            members = self._pool.members.values()
            if or_else is not None and members and not any(one.continues for one in members):
                raise or_else
            if self._told is not None and any(one.is_up for one in members):
                raise self._told
            if time.monotonic() - begin_s > patience_s:
                raise self._told or ApiError(
                    503,
                    f"No back end of {self._pool.config.name!r} was up within {patience_s:g} s; "
                    "try again later.",
                    code="model_busy",
                    retry_after_s=5,
                )
            await asyncio.sleep(_LOOK_S)
        return member

    @contextlib.contextmanager
    def taken(self, member: Member) -> Iterator[None]:
        """While the request is with it."""
        member.running += 1
        try:
            yield
            member.answered()
        finally:
            member.running -= 1

    def gets_on(self) -> None:
        self._fruitless = 0

    def failed(self, member: Member, error: MemberLostError | MemberRefusedError) -> None:
        """Raises ApiError for a request with which too many have failed in a row."""
        if isinstance(error, MemberRefusedError):
            self._told = error.told
            if not error.is_broken:
                self._full.add(member)
                return
        member.failed()
        self._fruitless += 1
        if self._fruitless >= MAX_FRUITLESS:
            raise self._told or ApiError(
                503,
                f"{self._fruitless} back ends in a row failed with this request; it is not tried "
                "on another.",
                code="poison_request",
            )
