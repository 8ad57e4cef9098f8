"""The cheapest schedule of a job by somebody who knows the whole trace: a bound for policies.

Dynamic programming over (tick, place, work done): `cost[place][w]` is the least money that has
done `w` quanta of work by the tick. Who knows the future stops before a preemption, so nothing is
lost; a move costs its restart. Times are rounded in the job's favour, so no policy can be cheaper.
"""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apps.common.spot.trace import Market
from apps.train.spot.job import Job, Prices

_QUANTA_PER_TICK = range(4, 13)  # more are slower; a restart is rounded down to whole ones
_LEAST_QUANTA = 40  # of work: what a short job is rounded down by is little of it
_EXACT = 1e-9  # quotients that are whole but for their last digit count as whole
Costs = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Start:
    """Taking machines: paid ticks until the tick that begins with the job running."""

    num_ticks: int
    done: int
    """Quanta of work in the last of those ticks."""
    quanta_per_tick: int


def optimum_usd(job: Job, market: Market, prices: Prices, start: int = 0) -> float:
    """Dollars of the cheapest schedule that keeps the deadline, or ends within the trace.

    Infinite where none does. Without a deadline only spot machines are taken, as policies do.
    """
    begin = _start(job, market.tick_s)
    quantum_s = market.tick_s / begin.quanta_per_tick
    work = math.floor(job.work_s / quantum_s)
    last = market.num_ticks - start
    hourly = [prices.spot_usd] * len(market.zones)
    up = market.up[:, start:]
    if job.deadline_s is not None:
        last = min(last, math.ceil(job.deadline_s / market.tick_s))
        hourly.append(prices.on_demand_usd)
        up = np.vstack([up, np.ones((1, up.shape[1]), dtype=bool)])
    quantum_usd = np.array(hourly) * quantum_s / 3600
    return _cheapest(up[:, :last], quantum_usd, work, begin)


def _start(job: Job, tick_s: float) -> _Start:
    """In as few quanta a tick as round the restart down by least, in the job's favour.

    Worked example: of ticks of 600 s, 720 s are 6 quanta of 120 s, five a tick: two ticks, and 4
    quanta of work in the second. A fourth of a tick would make them 600 s, one tick.
    """

    def left_out_s(quanta_per_tick: int) -> float:
        quantum_s = tick_s / quanta_per_tick
        return round(job.restart_s - math.floor(job.restart_s / quantum_s + _EXACT) * quantum_s, 6)

    finer = math.ceil(_LEAST_QUANTA * tick_s / job.work_s / _QUANTA_PER_TICK.start)
    per_tick = min([count * finer for count in _QUANTA_PER_TICK], key=left_out_s)
    quanta = math.floor(job.restart_s * per_tick / tick_s + _EXACT)
    ticks = max(math.ceil(quanta / per_tick), 1)
    return _Start(num_ticks=ticks, done=ticks * per_tick - quanta, quanta_per_tick=per_tick)


def _cheapest(up: NDArray[np.bool_], quantum_usd: Costs, work: int, begin: _Start) -> float:
    """`up` [places, ticks]; `ahead[k]` [places, work + 1] holds the costs k ticks from now."""
    num_places, num_ticks = up.shape
    startable = _runs(up, begin.num_ticks)
    idle = np.full(work + 1, np.inf)
    idle[0] = 0.0
    ahead = deque(_unreached(num_places, work) for _ in range(begin.num_ticks + 1))
    for tick in range(num_ticks):
        here = ahead.popleft()
        ahead.append(_unreached(num_places, work))
        idle = np.minimum(idle, here.min(axis=0))
        for place in np.flatnonzero(up[:, tick]):
            usd = float(quantum_usd[place])
            _worked(here[place], begin.quanta_per_tick, usd, 0, ahead[0][place])
            if startable[place, tick]:
                restart = begin.num_ticks * begin.quanta_per_tick - begin.done
                target = ahead[begin.num_ticks - 1][place]
                _worked(idle, begin.done, usd, restart, target)
    return float(min(idle[work], *(costs[:, work].min() for costs in ahead)))


def _unreached(num_places: int, work: int) -> Costs:
    return np.full((num_places, work + 1), np.inf)


def _runs(up: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
    """[places, ticks]: up now, and for `length` ticks from now."""
    runs = up.copy()
    for later in range(1, length):
        runs[:, :-later] &= up[:, later:]
        runs[:, -later:] = False
    return runs


def _worked(costs: Costs, done: int, usd: float, restart: int, target: Costs) -> None:
    """Lower `target` by doing `done` quanta more; who has fewer left pays for those only."""
    work = len(costs) - 1
    done = min(done, work)
    np.minimum(target[done:], costs[: work + 1 - done] + (restart + done) * usd, out=target[done:])
    left = np.arange(done + 1)[::-1]
    finishing = costs[work - done :] + (restart + left) * usd
    target[work] = min(target[work], finishing.min())
