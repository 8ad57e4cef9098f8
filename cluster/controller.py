"""The controller of a run on machines that come and go: look, decide, move, once a tick.

What a simulation decides with a View, this does with a cloud (`cluster/sky_cloud.py`, or one of
tests). Knows of no SkyPilot and no files.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from apps.common.command.events import Reporter
from apps.common.errors import CriaError
from apps.common.files.costs import MachineHours, RunCost, run_cost
from apps.common.spot.trace import ON_DEMAND
from apps.train.spot.job import IDLE, Job, Prices, View
from apps.train.spot.policy import Policy

Rental = Literal["none", "starting", "rented"]
"""Whether there are machines to pay: starting ones are once they run."""


class CloudIsAway(CriaError):
    """Nothing can be seen or asked for now; the machines may well go on."""


class Cloud(Protocol):
    """What the controller needs of whoever rents machines."""

    def up(self) -> tuple[str, ...]:
        """Zones that have machines, as far as is known; the job's own, while it has it."""
        ...

    def place(self) -> str:
        """Where the job is: IDLE once its machines were taken."""
        ...

    def rental(self) -> tuple[str, Rental]:
        """Where machines were asked for last, and whether they came; moves nothing."""
        ...

    def left_s(self) -> float:
        """Training still to do: what a preemption took back counts again."""
        ...

    def lost_s(self) -> float:
        """Training that preemptions have taken back so far."""
        ...

    def has_ended(self) -> bool:
        """Whether the job has done all, the last checkpoint and the export too."""
        ...

    def ended_s(self) -> float | None:
        """Unix time at which the job ended, well or not; None while it has not."""
        ...

    def move(self, place: str) -> None:
        """Leave the present machines, and take those of `place` unless that is IDLE."""
        ...


@dataclass(kw_only=True, slots=True)
class Spent:
    """Time and machines so far; all that the controller knows, so that it can be taken up again."""

    seen_s: float
    """Unix time up to which the rest counts."""
    elapsed_s: float = 0.0
    up_s: float = 0.0
    """How long some zone has had machines without a break."""
    starting_s: float = 0.0
    """The present start, which is paid for if it succeeds."""
    paid_s: dict[str, float] = field(default_factory=dict[str, float])
    """By place."""


@dataclass(kw_only=True, slots=True)
class Controller:
    """One decision a tick."""

    job: Job
    policy: Policy
    cloud: Cloud
    home: str
    tick_s: float
    spent: Spent

    def step(self) -> str:
        """Look, decide, move; returns the place until the next step."""
        place, up = self.cloud.place(), self.cloud.up()  # a loss seen now closes its zone
        left_s = self.cloud.left_s()
        self.spent.up_s = self.spent.up_s + self.tick_s if up else 0.0
        view = View(
            elapsed_s=self.spent.elapsed_s,
            left_s=left_s or self.tick_s,  # all steps taken, the export to do
            place=place,
            up=up,
            home=self.home,
            up_s=self.spent.up_s,
            tick_s=self.tick_s,
        )
        is_ending = left_s == 0 and place != IDLE
        chosen = place if is_ending else self.policy(self.job, view)
        if chosen != place:
            self.spent.starting_s = 0.0
            self.cloud.move(chosen)
        return chosen

    def passed(self, now_s: float) -> str:
        """Time up to now, or to the job's end, paid for where it had machines, which is returned.

        Worked example: two ticks of 300 s starting and one rented are 900 s paid; two ticks
        starting and then none, because the zone had no machines after all, are nothing.
        """
        place, rental = self.cloud.rental()
        ended_s, spent = self.cloud.ended_s(), self.spent
        until_s = now_s if ended_s is None else max(min(now_s, ended_s), spent.seen_s)
        seconds, spent.seen_s = until_s - spent.seen_s, until_s
        spent.elapsed_s += seconds
        spent.starting_s = 0.0 if rental == "none" else spent.starting_s + seconds
        if rental == "rented":
            spent.paid_s[place] = spent.paid_s.get(place, 0.0) + spent.starting_s
            spent.starting_s = 0.0
        return place

    @property
    def done(self) -> bool:
        return self.cloud.has_ended()

    def cost(self, kind: str, prices: Prices, dated: str) -> RunCost:
        rows = [_row(kind, place, seconds, prices) for place, seconds in self.spent.paid_s.items()]
        return run_cost(
            rows,
            lost_work_hours=self.cloud.lost_s() / 3600,
            on_demand_usd_per_hour=prices.on_demand_usd,
            prices_dated=dated,
        )


def _row(kind: str, place: str, seconds: float, prices: Prices) -> MachineHours:
    dear = place == ON_DEMAND
    hours, hourly = seconds / 3600, prices.on_demand_usd if dear else prices.spot_usd
    return MachineHours(
        kind=kind,
        region="any" if dear else place,
        market="on-demand" if dear else "spot",
        hours=hours,
        usd=hours * hourly,
    )


def follow(
    controller: Controller,
    reporter: Reporter,
    save: Callable[[], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> None:
    """Step until the run has ended; what was spent is saved after every tick."""
    while True:
        try:
            before = controller.passed(clock())
            save()
            if controller.done:
                break
            place = controller.step()
            if place != before:
                hours = controller.spent.elapsed_s / 3600
                reporter.event("launch.move", place=place, elapsed_h=hours)
        except CloudIsAway as away:
            reporter.event("launch.away", reason=away.sentence)
        sleep(controller.tick_s)
    reporter.event("launch.done", hours=controller.spent.elapsed_s / 3600)
