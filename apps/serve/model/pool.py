"""The back ends of a pool: which of them are well, and which one gets the next request.

Every member is asked four times a second how it is. One that is dead, that has been silent for a
second, that said it would leave, or that failed a request a moment ago gets no new ones. `gone` is
set as long as nothing can be hoped for from it: whoever waits for its tokens goes elsewhere.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field

from apps.serve.config import ModelConfig, Prices
from apps.serve.engine.config import RemoteConfig
from apps.serve.engine.remote import Health, RemoteEngine
from apps.serve.model.entry import Entry, RemoteEntry

FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 30.0
LATE_S = 1.0
"""of silence until a member gets nothing new"""
SILENT_S = 5.0
"""of silence until what it has begun goes elsewhere; as GatewayConfig.silence_timeout_s"""
LOOK_S = 0.25


@dataclass(slots=True, eq=False)
class Member:
    """One back end and how it is."""

    name: str
    back_end: Entry | RemoteEntry
    weight: float = 1.0
    is_last_resort: bool = False
    is_leaving: bool = False
    """It ends what it has begun and gets nothing new."""
    running: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    _quiet_looks: int = 0
    """Looks are counted, not seconds, so that a pause of this process is nobody's silence."""
    _pause_s: float = 0.0
    _paused_until_s: float = 0.0

    @property
    def config(self) -> ModelConfig:
        return self.back_end.config

    @property
    def is_up(self) -> bool:
        is_late = self._quiet_looks * LOOK_S > LATE_S
        is_paused = time.monotonic() < self._paused_until_s
        return not (self.gone.is_set() or self.is_leaving or is_late or is_paused)

    @property
    def continues(self) -> bool:
        """Whether it can go on with a chat answer that another one began."""
        if isinstance(self.back_end, RemoteEntry):
            return self.back_end.engine.config.continues
        return self.back_end.model.template is not None

    def heard(self, health: Health) -> None:
        """What it said when it was asked how it is."""
        if health == "well":
            self._quiet_looks = 0
            self.gone.clear()
        elif health == "dead":
            self.gone.set()

    def looked_at(self) -> None:
        """It was asked, or is yet to answer."""
        self._quiet_looks += 1
        if self._quiet_looks * LOOK_S > SILENT_S:
            self.gone.set()

    def failed(self) -> None:
        """It gets nothing for a while, twice as long each time; one loss takes many requests."""
        if time.monotonic() < self._paused_until_s:
            return
        self._pause_s = min(MAX_PAUSE_S, 2 * self._pause_s or FIRST_PAUSE_S)
        self._paused_until_s = time.monotonic() + self._pause_s

    def answered(self) -> None:
        self._pause_s = self._paused_until_s = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolEntry:
    """One name over several back ends."""

    config: ModelConfig
    members: dict[str, Member]

    @property
    def num_up(self) -> int:
        return sum(member.is_up for member in self.members.values())

    @property
    def is_up(self) -> bool:
        return self.num_up > 0

    @property
    def engines(self) -> Iterable[RemoteEngine]:
        """Of members elsewhere."""
        entries = (member.back_end for member in self.members.values())
        return [entry.engine for entry in entries if isinstance(entry, RemoteEntry)]

    def choose(self, but: Collection[Member], must_continue: bool) -> Member | None:
        """The one with the fewest requests for its weight; one of last resort if all others are
        down. With weights 2 and 1, and 3 and 2 requests running, it is the first: 4/2 < 3/1."""
        able = [m for m in self.members.values() if m.is_up and m not in but]
        if must_continue:
            able = [m for m in able if m.continues]
        first = [m for m in able if not m.is_last_resort]
        return min(first or able, key=lambda m: (m.running + 1) / m.weight, default=None)


async def watch_members(
    pools: Callable[[], Iterable[PoolEntry]], health_of: Callable[[Entry], Awaitable[Health]]
) -> None:
    """Ask all members how they are, again and again; `health_of` asks replicas."""
    asking: dict[Member, asyncio.Task[None]] = {}

    async def ask(member: Member) -> None:
        back_end = member.back_end
        is_here = isinstance(back_end, Entry)
        member.heard(await (health_of(back_end) if is_here else back_end.engine.health()))

    while True:
        members = {member for pool in pools() for member in pool.members.values()}
        asking = {m: task for m, task in asking.items() if not task.done()}
        for member in members:
            member.looked_at()
        asking |= {m: asyncio.create_task(ask(m)) for m in members - asking.keys()}
        await asyncio.sleep(LOOK_S)


def remote_model(name: str, remote: RemoteConfig, prices: Prices) -> ModelConfig:
    """A member elsewhere that no file names."""
    names = ("base_url", "model", "continues")
    options = {name: getattr(remote, name) for name in names}
    return ModelConfig(name=name, engine="remote", options=options, prices=prices)
