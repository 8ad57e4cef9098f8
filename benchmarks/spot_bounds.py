"""How much of greedy's gap to the clairvoyant optimum anybody could close who does not know the
future: two bounds beside which `benchmarks/spot.py` shows its policies."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import numpy as np

from apps.common.spot.trace import Market
from apps.train.spot import study
from apps.train.spot.chain import DOWN, Chain, learn, state
from apps.train.spot.job import Job, Prices
from apps.train.spot.least_cost import least_cost, plan_tick_s
from apps.train.spot.optimum import optimum_usd
from apps.train.spot.policy import LINES, Policy, greedy, uniform_progress
from apps.train.spot.replay import replay

_TIMES = 3
"""A drawn market is so many times as long as the replayed half, with so many times its starts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """Runs over markets that are drawn from a law which the policy knows."""

    greedy_usd: list[float]
    policy_usd: list[float]
    optimum_usd: list[float]


def in_hindsight(
    job: Job,
    market: Market,
    prices: Prices,
    begins: Sequence[int],
    measured_usd: Sequence[list[float]] = (),
) -> list[float]:
    """Dollars of the policy that is cheapest over these very runs.

    It is one of those that were measured, a line of Uniform Progress, or the least expected cost by
    the law of the replayed half itself.
    """
    law = learn(market, plan_tick_s(job, market.tick_s))
    policies: list[Policy] = [partial(uniform_progress, line=line) for line in LINES]
    policies.append(least_cost(job, law, prices))
    each = [
        [replay(job, market, policy, start).usd(prices) for start in begins] for policy in policies
    ]
    return min([*measured_usd, *each], key=fmean)


def closable(job: Job, market: Market, prices: Prices, most_starts: int, seed: int) -> Drawn:
    """Of machines that come and go by the law of `market`, whose future nobody knows.

    There the policy of least expected cost is the best of all, but for the rounding of its table.
    """
    law = learn(market, plan_tick_s(job, market.tick_s))
    world = drawn(law, _TIMES * market.num_ticks * round(market.tick_s) // round(law.tick_s), seed)
    begins = study.starts(job, world, _TIMES * most_starts)
    policy = least_cost(job, law, prices)

    def usd(policy: Policy) -> list[float]:
        return [replay(job, world, policy, start).usd(prices) for start in begins]

    return Drawn(
        greedy_usd=usd(greedy),
        policy_usd=usd(policy),
        optimum_usd=[optimum_usd(job, world, prices, start) for start in begins],
    )


def drawn(law: Chain, num_ticks: int, seed: int) -> Market:
    """A market of two zones, of which one has machines at a time; it begins without any."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((2, num_ticks), dtype=np.int64)
    up_s, zone = 0.0, 0
    for tick in range(num_ticks):
        now = state(up_s)
        leaves = law.moves[now, DOWN]
        if rng.random() < leaves:
            up_s = 0.0
            continue
        if now != DOWN and rng.random() < law.moved[now] / (1 - leaves):
            zone = 1 - zone
        up_s += law.tick_s
        counts[zone, tick] = 1
    return Market(name="drawn", tick_s=law.tick_s, zones=("a", "b"), counts=counts)
