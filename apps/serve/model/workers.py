"""Workers elsewhere that have joined a pool: members as long as they say that they are there.

A worker announces itself once a second. Whichever gateway hears it tells all others, and each of
them keeps this list. docs/pool.md describes the contract.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from apps.common.errors import ConfigError
from apps.serve.config import Prices
from apps.serve.engine.config import RemoteConfig
from apps.serve.engine.remote import RemoteEngine
from apps.serve.model.entry import RemoteEntry
from apps.serve.model.pool import Member, PoolEntry, remote_model

LEASE_S = 3.0
"""without an announcement, and the worker is out"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Announcement:
    """What a worker says of itself."""

    pool: str
    worker: str
    """its id; nobody but the holder of the same key may use it"""
    owner: str
    """name of the key"""
    base_url: str
    model: str
    """the name it has there"""
    health_url: str = ""
    api_key: str = field(default="", repr=False)
    """for the gateway to use there"""
    weight: float = 1.0
    continues: bool = False
    prices: Prices = field(default_factory=Prices)
    leaves: bool = False
    """It ends what it has begun and wants nothing new."""
    is_gone: bool = False
    """It has ended."""

    def config(self) -> RemoteConfig:
        """Raises ConfigError."""
        if "@" in self.base_url.partition("://")[2].partition("/")[0]:
            raise ConfigError("base_url holds a user or a password; give api_key instead")
        return RemoteConfig(
            base_url=self.base_url,
            model=self.model,
            health_url=self.health_url,
            continues=self.continues,
        )


@dataclass(slots=True, eq=False)
class _Joined:
    said: Announcement
    member: Member
    until_s: float

    def is_same(self, said: Announcement) -> bool:
        """Whether the server, its key and its prices are those that are known."""
        return replace(self.said, weight=said.weight, leaves=said.leaves) == said


class Workers:
    """Those that one gateway knows of."""

    def __init__(self, pools: Callable[[], Mapping[str, PoolEntry]]) -> None:
        self._pools = pools
        self._joined: dict[tuple[str, str], _Joined] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def said_by(self, pool: str, worker: str) -> Announcement | None:
        """What the worker of that id said last, if it is there."""
        joined = self._joined.get((pool, worker))
        return joined.said if joined is not None else None

    def of(self, pool: str) -> Mapping[str, Member]:
        """By their ids."""
        return {worker: one.member for (name, worker), one in self._joined.items() if name == pool}

    async def heard(self, said: Announcement) -> int:
        """How many requests are with it."""
        key = (said.pool, said.worker)
        joined = self._joined.get(key)
        if joined is not None and said.is_gone:
            self._drop(key)
            return 0
        if said.is_gone or said.pool not in self._pools():
            return 0
        if joined is None or not joined.is_same(said):
            joined = await self._new(key, said)
        joined.said, joined.until_s = said, time.monotonic() + LEASE_S
        joined.member.weight, joined.member.is_leaving = said.weight, said.leaves
        return joined.member.running

    def expire(self) -> None:
        """Drop those that have fallen silent, and put the others into their pools."""
        now_s, pools = time.monotonic(), self._pools()
        for key, joined in list(self._joined.items()):
            if joined.until_s < now_s or key[0] not in pools:
                self._drop(key)
            else:
                pools[key[0]].members[joined.member.name] = joined.member

    async def _new(self, key: tuple[str, str], said: Announcement) -> _Joined:
        if key in self._joined:
            self._drop(key)
        engine = RemoteEngine(said.config(), said.api_key)
        await engine.start()
        config = remote_model(said.worker, engine.config, said.prices)
        member = Member(said.worker, RemoteEntry(config=config, engine=engine))
        self._joined[key] = _Joined(said, member, 0.0)
        self._pools()[said.pool].members[member.name] = member
        return self._joined[key]

    def _drop(self, key: tuple[str, str]) -> None:
        joined = self._joined.pop(key)
        pool = self._pools().get(key[0])
        if pool is not None:
            pool.members.pop(joined.member.name, None)
        joined.member.gone.set()  # what waits for its tokens goes elsewhere
        if isinstance(joined.member.back_end, RemoteEntry):
            closing = asyncio.create_task(joined.member.back_end.engine.close_when_idle())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
