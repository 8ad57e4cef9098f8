"""The controller of a pool's workers on machines that come and go: look, decide, start and end.

What a replay decides with a Fleet (`python -m apps.serve simulate`), this does with a cloud
(`cluster/sky_workers.py`, or one of tests). A worker is one machine with one replica. Knows of no
SkyPilot and no network. Who is there is asked anew at every look.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from apps.common.command.events import Reporter
from apps.common.spot.trace import ON_DEMAND
from apps.serve.spot.fleet import Fleet, Policy
from cluster.controller import CloudIsAway

SETTLE_S = 4.0
"""a gateway that has just begun has heard from every worker by then"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Worker:
    """One machine that was asked for."""

    name: str
    """its id in the pool, too"""
    place: str
    """a zone, or ON_DEMAND"""
    asked_s: float
    has_run: bool
    """Whether the machine came."""
    is_taken: bool
    """Whether its zone has no machine for it, or has it no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rented:
    """A machine that came, and the time to pay for."""

    place: str
    begun_s: float
    ended_s: float | None = None
    """None while it is there"""


class WorkerCloud(Protocol):
    """What the controller needs of whoever rents machines."""

    def workers(self) -> Sequence[Worker]:
        """Those that are not ending, and those that were taken since the last call."""
        ...

    def launch(self, place: str) -> None:
        """Ask for one more; it joins the pool by itself once it can answer."""
        ...

    def end(self, worker: Worker) -> None:
        """It leaves the pool, ends what it has begun, and its machine goes."""
        ...


class Pool(Protocol):
    """What the gateway knows."""

    def up(self) -> frozenset[str]:
        """Names of the workers that are well. Raises CloudIsAway."""
        ...


@dataclass(kw_only=True, slots=True)
class WorkerController:
    """One decision a look."""

    policy: Policy
    cloud: WorkerCloud
    pool: Pool
    replicas: int
    """that have to be ready"""
    start_s: float
    """a start in a zone that takes longer counts as a zone without machines, and so does a machine
    that is not well for so long"""
    sleep: Callable[[float], None] = time.sleep
    _was_up: frozenset[str] = frozenset()
    _unwell_s: dict[str, float] = field(default_factory=dict[str, float])
    """since when those whose machines are there have not been well"""

    def step(self, now_s: float) -> Fleet:
        """Look, decide, start and end; returns what was seen. Raises CloudIsAway."""
        up = self._up()  # first: an end that the cloud tells once must not be lost with it
        workers = self.cloud.workers()
        unwell = [one.name for one in workers if one.has_run and one.name not in up]
        self._unwell_s = {name: self._unwell_s.get(name, now_s) for name in unwell}
        gone = [one for one in workers if one.is_taken or self._is_late(one, now_s)]
        held = [one for one in workers if one not in gone]
        lost = [one for one in gone if one.is_taken and one.has_run]
        fleet = Fleet(
            now_s=now_s,
            target=self.replicas,
            ready=Counter(one.place for one in held if one.name in up),
            starting=Counter(one.place for one in held if one.name not in up),
            lost=Counter(one.place for one in lost),
            refused=frozenset(one.place for one in gone if one not in lost),
        )
        wanted = self.policy.decide(fleet)
        for one in gone:
            self.cloud.end(one)
        for place in sorted({*wanted, *(one.place for one in held)}):
            there = [one for one in held if one.place == place]
            self._follow(place, there, wanted.get(place, 0), up)
        return fleet

    def _up(self) -> frozenset[str]:
        """A gateway that has just begun knows nobody yet: who is missing is asked for again."""
        up = self.pool.up()
        if self._was_up - up:
            self.sleep(SETTLE_S)
            up |= self.pool.up()
        self._was_up = up
        return up

    def _is_late(self, worker: Worker, now_s: float) -> bool:
        """On demand SkyPilot may look everywhere, and there is no better place to ask."""
        if worker.has_run:
            return now_s - self._unwell_s.get(worker.name, now_s) > self.start_s
        return worker.place != ON_DEMAND and now_s - worker.asked_s > self.start_s

    def _follow(self, place: str, there: Sequence[Worker], count: int, up: frozenset[str]) -> None:
        """Those that answer nobody yet go first, the newest of them before the others."""
        for _ in range(count - len(there)):
            self.cloud.launch(place)
        last = sorted(there, key=lambda one: (one.name in up, -one.asked_s))
        for one in last[: max(len(there) - count, 0)]:
            self.cloud.end(one)


def follow(
    controller: WorkerController,
    reporter: Reporter,
    look_s: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
    save: Callable[[float], None] = lambda now_s: None,
) -> None:
    """Look after look, without end; an event whenever something has changed. `save` comes after
    each."""
    told: Fleet | None = None
    while True:
        try:
            now_s = clock()
            fleet = controller.step(now_s)
            if told is None or _shown(fleet) != _shown(told):
                reporter.event("workers.seen", **_shown(fleet))
            told = fleet
            save(now_s)
        except CloudIsAway as away:
            reporter.event("workers.away", reason=away.sentence)
        sleep(look_s)


def _shown(fleet: Fleet) -> dict[str, object]:
    places = sorted({*fleet.ready, *fleet.starting})
    shown = ", ".join(
        f"{place} {fleet.ready.get(place, 0)}/{fleet.held(place)}" for place in places
    )
    lost = ", ".join(f"{place} {count}" for place, count in sorted(fleet.lost.items()))
    return {
        "ready": f"{fleet.num_ready} of {fleet.target}",
        "places": shown or "none",
        "taken": lost or "none",
        "refused": ", ".join(sorted(fleet.refused)) or "none",
    }
