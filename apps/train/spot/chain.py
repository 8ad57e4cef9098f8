"""How spot machines come and go, as a chain of three states that history is counted into."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apps.common.spot.trace import Market

DOWN, FRESH, OLD = 0, 1, 2
FRESH_S = 1800.0
"""Machines that have been there this long are likelier to stay: most sessions end early."""
_PRIOR_H = 6.0
"""Hours that the guess below counts for, beside what was seen."""
_GUESS_H = 3.0
"""Spells up and down last this long, when nothing is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """From one tick to the next."""

    tick_s: float
    moves: NDArray[np.float64]
    """[state, next state], rows add up to 1."""
    moved: NDArray[np.float64]
    """[state]: odds that the zone in use has lost its machines by then and another one has some"""


def state(up_s: float) -> int:
    """The state of a market whose machines have been there for `up_s` seconds; 0: none."""
    if up_s <= 0:
        return DOWN
    return FRESH if up_s <= FRESH_S else OLD


def guess(tick_s: float) -> Chain:
    """What is assumed of machines that nobody has watched."""
    leave = min(tick_s / 3600 / _GUESS_H, 0.9)
    age = min(tick_s / FRESH_S, 1 - leave)
    moves = [[1 - leave, leave, 0.0], [leave, 1 - leave - age, age], [leave / 2, 0, 1 - leave / 2]]
    return Chain(tick_s=tick_s, moves=np.array(moves), moved=np.zeros(3))


def learn(history: Market, tick_s: float) -> Chain:
    """Moves counted every `tick_s` of a history, with the guess for what was seldom seen."""
    every = max(round(tick_s / history.tick_s), 1)
    up = history.up.any(axis=0)
    ticks = np.arange(history.num_ticks)
    last_down = np.maximum.accumulate(np.where(up, -1, ticks))
    up_s = (ticks - last_down) * history.tick_s * up
    states = np.array([state(float(seconds)) for seconds in up_s[::every]])
    counts = guess(tick_s).moves * _PRIOR_H * 3600 / tick_s
    np.add.at(counts, (states[:-1], states[1:]), 1)
    totals = counts.sum(axis=1)
    moved = np.bincount(states[:-1], _moves(history, every), 3) / totals
    return Chain(tick_s=tick_s, moves=counts / totals[:, None], moved=moved)


def _moves(history: Market, every: int) -> NDArray[np.float64]:
    """[moves from tick to tick]: 1 where a job that takes the first zone that is up, and stays for
    as long as it may, finds itself in another one."""
    at = np.empty(history.num_ticks, dtype=np.int64)
    zone = -1
    for tick, up in enumerate(history.up.T):
        if zone < 0 or not up[zone]:
            zone = int(up.argmax()) if up.any() else -1
        at[tick] = zone
    at = at[::every]
    return ((at[1:] != at[:-1]) & (at[1:] >= 0) & (at[:-1] >= 0)).astype(np.float64)
