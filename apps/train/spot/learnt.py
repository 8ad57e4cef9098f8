"""Policies by name, fitted to what is known of a market before the job begins."""

from collections.abc import Sequence
from functools import partial
from statistics import fmean

from apps.common.spot.trace import Market
from apps.train.spot.chain import learn
from apps.train.spot.job import Job, Prices
from apps.train.spot.least_cost import least_cost, plan_tick_s
from apps.train.spot.policy import LINES, POLICIES, Line, Policy, uniform_progress
from apps.train.spot.replay import replay

UNIFORM_PROGRESS, LEAST_COST = "uniform-progress", "least-cost"
NAMES = (*POLICIES, UNIFORM_PROGRESS, LEAST_COST)


def made(
    name: str, job: Job, history: Market, prices: Prices, history_starts: Sequence[int]
) -> Policy:
    """The policy of that name; replays of the history begin at `history_starts`."""
    if name == LEAST_COST:
        return least_cost(job, learn(history, plan_tick_s(job, history.tick_s)), prices)
    if name == UNIFORM_PROGRESS:
        line = best_line(job, history, prices, history_starts)
        return partial(uniform_progress, line=line)
    return POLICIES[name]


def best_line(job: Job, history: Market, prices: Prices, starts: Sequence[int]) -> Line:
    """The line that would have cost least on average; of equal ones the last, nearest to greedy."""

    def usd(line: Line) -> float:
        policy = partial(uniform_progress, line=line)
        return fmean(replay(job, history, policy, start).usd(prices) for start in starts)

    return min(reversed(LINES), key=usd)
