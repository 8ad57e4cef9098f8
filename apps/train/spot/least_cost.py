"""The policy of least expected cost: the best place for every time, work left and market state.

Backward induction over (tick, work left, place, state of the chain): `value` is the expected money
from there to the end. Lost work is put at its mean. The deadline holds by `must_be_sure`, as in
every policy; where that forces the job on demand the value is exact.
"""

import math

import numpy as np
from numpy.typing import NDArray

from apps.common.spot.trace import ON_DEMAND
from apps.train.spot.chain import DOWN, Chain, state
from apps.train.spot.job import IDLE, Job, Prices, View
from apps.train.spot.policy import Policy, any_zone, must_be_sure, spot_zone, sure_s

_QUANTA_PER_TICK = 2
_IDLE, _ON_DEMAND, _SPOT = 0, 1, 2
_WAITING = 0.01
"""An hour of waiting counts as this share of one on spot: of equal costs the earlier end wins."""
Values = NDArray[np.float64]


def plan_tick_s(job: Job, tick_s: float) -> float:
    """Ticks of the table: a multiple of the market's, not much below a restart."""
    return tick_s * max(round(job.restart_s / 2 / tick_s), 1)


def least_cost(job: Job, chain: Chain, prices: Prices) -> Policy:
    """A policy for one job; without a deadline spot alone is cheapest, whatever the chain."""
    if job.deadline_s is None:
        return any_zone
    choices = _choices(job, job.deadline_s, chain, prices)
    last, most = choices.shape[0] - 1, choices.shape[3] - 1
    quantum_s = chain.tick_s / _QUANTA_PER_TICK

    def policy(job: Job, view: View) -> str:
        if must_be_sure(job, view):
            return ON_DEMAND
        place = {IDLE: _IDLE, ON_DEMAND: _ON_DEMAND}.get(view.place, _SPOT)
        tick = min(int(view.elapsed_s / chain.tick_s), last)
        left = min(math.ceil(view.left_s / quantum_s), most)
        choice = choices[tick, place, state(view.up_s), left]
        if choice == _SPOT and (zone := spot_zone(view)):
            return zone
        return ON_DEMAND if choice == _ON_DEMAND else IDLE

    return policy


def _choices(job: Job, deadline_s: float, chain: Chain, prices: Prices) -> NDArray[np.int8]:
    """[ticks, place, state, quanta of work left] -> the place for the next tick."""
    quantum_s = chain.tick_s / _QUANTA_PER_TICK
    most_s = job.work_s + 3 * job.restart_s + job.most_lost_s
    left_s: Values = np.arange(int(most_s / quantum_s) + 2) * np.float64(quantum_s)
    num_ticks = int(np.ceil(deadline_s / chain.tick_s))
    sure_usd = left_s * prices.on_demand_usd / 3600
    value = np.broadcast_to(np.where(left_s > 0, 1e9, 0.0), (3, 3, len(left_s)))
    choices = np.empty((num_ticks, 3, 3, len(left_s)), np.int8)
    for tick in reversed(range(num_ticks)):
        slack_s = deadline_s - tick * chain.tick_s - left_s
        forced = slack_s < sure_s(job, chain.tick_s)
        usd = _usd(job, chain, prices, value, left_s)
        restart_usd = job.restart_s * prices.on_demand_usd / 3600
        for place in (_IDLE, _ON_DEMAND):
            usd[place, :, _IDLE][:, forced] = usd[place, :, _SPOT][:, forced] = np.inf
            sure = sure_usd + (restart_usd if place == _IDLE else 0.0)
            usd[place, :, _ON_DEMAND][:, forced] = sure[forced]
        choices[tick] = usd.argmin(axis=2)
        value = np.where(left_s > 0, usd.min(axis=2), 0.0)
    return choices


def _usd(job: Job, chain: Chain, prices: Prices, value: Values, left_s: Values) -> Values:
    """[place, state, next place, work left]: money from one choice on; `value` of the next tick.

    A move is work of `restart_s` on top. Taken machines leave the job idle with its mean loss,
    also where another zone has some: to go on there costs a restart.
    """
    tick_s = chain.tick_s

    def at(costs: Values, where_s: Values) -> Values:
        return np.stack([np.interp(where_s, left_s, row) for row in costs])

    after_s = np.maximum(left_s - tick_s, 0.0)
    paid_h = np.minimum(left_s, tick_s) / 3600
    lost_s = min(job.most_lost_s, job.checkpoint_s / 2 + job.flush_s)
    expected = np.einsum("mk,akg->amg", chain.moves, value)
    gone = chain.moved / chain.moves[:, 1:].sum(axis=1)
    stays, goes = (chain.moves[:, 1:] * odds[:, None] for odds in (1 - gone, gone))
    kept = np.einsum("mk,kg->mg", stays, value[_SPOT, 1:])
    again = at(value[_IDLE], left_s + lost_s)
    lost_usd = chain.moves[:, DOWN, None] * again[DOWN] + np.einsum("mk,kg->mg", goes, again[1:])
    taken_usd = np.where(after_s > 0, at(lost_usd, after_s), 0.0)
    on_demand = paid_h * prices.on_demand_usd + at(expected[_ON_DEMAND], after_s)
    spot = paid_h * prices.spot_usd + at(kept, after_s) + taken_usd
    spot[DOWN] = np.inf
    moved_s = left_s + job.restart_s
    usd = np.empty((3, 3, 3, len(left_s)))
    usd[:, :, _IDLE] = expected[_IDLE] + _WAITING * prices.spot_usd * tick_s / 3600
    usd[:, :, _ON_DEMAND] = at(on_demand, moved_s)
    usd[:, :, _SPOT] = at(spot, moved_s)
    usd[_ON_DEMAND, :, _ON_DEMAND] = on_demand
    usd[_SPOT, :, _SPOT] = spot
    return usd
