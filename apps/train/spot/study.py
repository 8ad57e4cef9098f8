"""Many starts of one job over many markets, under every policy that is asked for.

The first half of a trace is what may be known before: policies are fitted to it, and it
predicts the hours. The second half is replayed, from starts that are spread evenly over it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from apps.common.spot.trace import Market
from apps.train.spot.job import Job, Prices
from apps.train.spot.learnt import made
from apps.train.spot.optimum import optimum_usd
from apps.train.spot.replay import Outcome, replay
from apps.train.spot.result import Figures, Optimum, Simulated

ROOM = 2.0
"""A job without a deadline is only started where the trace has so many times its work left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """Every run over one market."""

    market: Market
    """The half that was replayed."""
    outcomes: dict[str, list[Outcome]]
    predicted: dict[str, list[Outcome]]
    optima_usd: list[float]


def starts(job: Job, market: Market, most: int) -> list[int]:
    """Ticks to start at, evenly spread; none where the market is too short."""
    window_s = job.deadline_s or ROOM * job.work_s
    last = market.num_ticks - int(np.ceil(window_s / market.tick_s))
    if last < 0:
        return []
    return sorted({int(tick) for tick in np.linspace(0, last, most)})


def run(
    job: Job, market: Market, names: Sequence[str], prices: Prices, most_starts: int
) -> Runs | None:
    """None where half of the market does not hold one run."""
    before, after = market.halves()
    begins, earlier = starts(job, after, most_starts), starts(job, before, most_starts)
    if not begins or not earlier:
        return None
    policies = {name: made(name, job, before, prices, earlier) for name in names}
    return Runs(
        market=after,
        outcomes={
            name: [replay(job, after, policy, start) for start in begins]
            for name, policy in policies.items()
        },
        predicted={
            name: [replay(job, before, policy, start) for start in earlier]
            for name, policy in policies.items()
        },
        optima_usd=[optimum_usd(job, after, prices, start) for start in begins],
    )


def simulated(job: Job, runs: Runs, prices: Prices) -> Simulated:
    return _summary(job, [runs], prices, runs.market.name)


def together(job: Job, runs: Sequence[Runs], prices: Prices) -> Simulated:
    return _summary(job, runs, prices, "all")


def _summary(job: Job, runs: Sequence[Runs], prices: Prices, name: str) -> Simulated:
    optima = [usd for one in runs for usd in one.optima_usd]
    return Simulated(
        market=name,
        zones=sum(len(one.market.zones) for one in runs),
        hours=sum(one.market.hours for one in runs),
        availability=fmean(one.market.availability for one in runs),
        policies=tuple(
            _figures(
                policy,
                job,
                prices,
                [outcome for one in runs for outcome in one.outcomes[policy]],
                [outcome for one in runs for outcome in one.predicted[policy]],
            )
            for policy in runs[0].outcomes
        ),
        optimum=Optimum(
            usd_mean=fmean(optima), usd_p50=percentile(optima, 50), usd_p90=percentile(optima, 90)
        ),
    )


def _figures(
    policy: str,
    job: Job,
    prices: Prices,
    outcomes: Sequence[Outcome],
    predicted: Sequence[Outcome],
) -> Figures:
    hours = [*map(_hours, outcomes)]
    waiting = [_if_ended(one, one.waiting_s / 3600) for one in outcomes]
    usd = [_if_ended(one, one.usd(prices)) for one in outcomes]
    paid_s = sum(one.spot_s + one.on_demand_s for one in outcomes)
    return Figures(
        policy=policy,
        runs=len(outcomes),
        hours_p50=percentile(hours, 50),
        hours_p90=percentile(hours, 90),
        usd_mean=fmean(usd),
        usd_p50=percentile(usd, 50),
        usd_p90=percentile(usd, 90),
        waiting_h_p50=percentile(waiting, 50),
        waiting_h_p90=percentile(waiting, 90),
        preemptions=fmean(one.preemptions for one in outcomes),
        on_demand_share=sum(one.on_demand_s for one in outcomes) / paid_s if paid_s else 0.0,
        lost_work_h=fmean(one.lost_s for one in outcomes) / 3600,
        missed=fmean(one.misses(job.deadline_s) for one in outcomes),
        predicted_hours_p50=percentile([*map(_hours, predicted)], 50),
    )


def _hours(outcome: Outcome) -> float:
    return _if_ended(outcome, outcome.elapsed_s / 3600)


def _if_ended(outcome: Outcome, value: float) -> float:
    """Infinite for a job that the trace has cut off, which would look short and cheap."""
    return value if outcome.ended else float("inf")


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed: no mean with an infinite one."""
    return float(np.percentile(values, percent, method="inverted_cdf"))
