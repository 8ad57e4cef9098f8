"""A job under a policy over a market, tick by tick."""

from dataclasses import dataclass

from apps.common.spot.trace import ON_DEMAND, Market
from apps.train.spot.job import IDLE, Job, Prices, View
from apps.train.spot.policy import Policy


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one job. Times in seconds."""

    ended: bool
    """False: the trace ended first."""
    elapsed_s: float
    spot_s: float
    """Paid on spot machines, restarts with it."""
    on_demand_s: float
    waiting_s: float
    """On no machine."""
    lost_s: float
    """Work done twice."""
    preemptions: int

    def usd(self, prices: Prices) -> float:
        spot_usd = self.spot_s * prices.spot_usd
        return (spot_usd + self.on_demand_s * prices.on_demand_usd) / 3600

    def misses(self, deadline_s: float | None) -> bool:
        return deadline_s is not None and (not self.ended or self.elapsed_s > deadline_s)


def replay(job: Job, market: Market, policy: Policy, start: int = 0) -> Outcome:
    """The job begins at tick `start`; a session is the work since its machines were taken."""
    tick_s, places = market.tick_s, market.places
    left_s, starting_s, session_s = job.work_s, 0.0, 0.0
    spot_s = on_demand_s = waiting_s = lost_s = up_s = 0.0
    preemptions, place, home = 0, IDLE, market.zones[0]
    for tick in range(start, market.num_ticks):
        up, elapsed_s = places[tick], (tick - start) * tick_s
        if place not in (IDLE, ON_DEMAND) and place not in up:
            lost = job.lost_s(session_s)
            left_s, lost_s, preemptions, place = left_s + lost, lost_s + lost, preemptions + 1, IDLE
        up_s = up_s + tick_s if up else 0.0
        view = View(
            elapsed_s=elapsed_s,
            left_s=left_s,
            place=place,
            up=up,
            home=home,
            up_s=up_s,
            tick_s=tick_s,
        )
        if (chosen := policy(job, view)) != place:
            place, starting_s, session_s = chosen, job.restart_s, 0.0
        if place == IDLE:
            waiting_s += tick_s
            continue
        begun_s = min(starting_s, tick_s)
        worked_s = min(tick_s - begun_s, left_s)
        starting_s, session_s = starting_s - begun_s, session_s + worked_s
        left_s -= worked_s
        if place == ON_DEMAND:
            on_demand_s += begun_s + worked_s
        else:
            spot_s += begun_s + worked_s
        if left_s <= 0:
            elapsed_s += begun_s + worked_s
            break
    else:
        elapsed_s = (market.num_ticks - start) * tick_s
    return Outcome(
        ended=left_s <= 0,
        elapsed_s=elapsed_s,
        spot_s=spot_s,
        on_demand_s=on_demand_s,
        waiting_s=waiting_s,
        lost_s=lost_s,
        preemptions=preemptions,
    )
