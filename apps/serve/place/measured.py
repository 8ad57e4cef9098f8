"""The figures of a Speed from steps of a real engine.

Least squares over all steps that follow another at once: each step's time is a sum of what was in
it. What the first steps after a pause take beyond that is the price of the pause.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from apps.serve.place.speed import Speed

ROUNDS = 6
"""The weights come from the fit before; they change no more after some four."""
MOST_TIMES = 4.0
"""A step that takes so many times as long as it should was held up from outside."""
FEWEST_PAUSES = 3
"""Of one length; fewer say nothing."""
KNOTS = (0.25, 0.5)
"""Of the largest context that was seen: from where on tokens may cost more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredStep:
    """What was in a step, and how long it took."""

    seconds: float
    sequences: int
    """running, each got a token"""
    context: int
    """tokens that they attended to, all together"""
    prompt_tokens: int
    prompt_context: int
    """tokens that those attended to, all together"""
    ended_tokens: int
    """of the requests that ended in it, prompt and answer"""
    pause_s: float
    """without work before it"""


def fitted(steps: Sequence[MeasuredStep]) -> Speed:
    """None of the figures is below 0. A pause costs the median of what was seen after it."""
    at_once = [step for step in steps if step.pause_s == 0]
    knots = [share * max((step.context for step in at_once), default=0) for share in KNOTS]
    parts = np.array([_parts(step, knots) for step in at_once])
    figures = _least_squares(parts, np.array([step.seconds for step in at_once]))
    step_s, sequence_s, context_s, prompt_s, attention_s, ended_s, *more_s = figures.tolist()
    more = tuple((knot, figure) for knot, figure in zip(knots, more_s, strict=True) if figure)
    speed = Speed(
        step_s=step_s,
        sequence_s=sequence_s,
        context_s=context_s,
        prompt_s=prompt_s,
        more_context_s=more,
        attention_s=attention_s,
        ended_s=ended_s,
    )
    return speed if len(at_once) == len(steps) else _with_pauses(speed, steps)


def expected_s(speed: Speed, step: MeasuredStep) -> float:
    """Of a step, by its figures."""
    seconds = speed.seconds(step.sequences, step.context, step.prompt_tokens, step.prompt_context)
    return seconds + speed.ended_s * step.ended_tokens + speed.cold_s(step.pause_s)


def _parts(step: MeasuredStep, knots: Sequence[float]) -> list[float]:
    return [
        1.0, step.sequences, step.context, step.prompt_tokens, step.prompt_context,
        step.ended_tokens, *(max(step.context - knot, 0.0) for knot in knots),
    ]  # fmt: skip


def _least_squares(parts: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of errors relative to what is expected. Relative to what was seen, slow steps would count
    less than fast ones, and every figure come out too low."""
    expected = np.full(len(seconds), seconds.mean())
    figures = np.zeros(parts.shape[1])
    for _ in range(ROUNDS):
        usual = np.minimum(seconds, MOST_TIMES * expected)
        figures = _not_negative(parts / expected[:, None], usual / expected)
        expected = np.maximum(parts @ figures, 1e-9)
    return figures


def _not_negative(parts: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """The figure that would be furthest below 0, each by its own size, is 0 instead, one by one."""
    figures, kept = np.zeros(parts.shape[1]), list(range(parts.shape[1]))
    sizes = np.abs(parts).mean(axis=0)
    while kept:
        solved, *_ = np.linalg.lstsq(parts[:, kept] / np.maximum(sizes[kept], 1e-12), wanted)
        if (solved >= 0).all():
            figures[kept] = solved / np.maximum(sizes[kept], 1e-12)
            break
        kept.pop(int(solved.argmin()))
    return figures


def _with_pauses(speed: Speed, steps: Sequence[MeasuredStep]) -> Speed:
    """The pauses that were made are told apart by a factor of 1.5."""
    after = sorted((step for step in steps if step.pause_s > 0), key=lambda step: step.pause_s)
    groups: list[list[MeasuredStep]] = []
    for step in after:
        if groups and step.pause_s < 1.5 * groups[-1][0].pause_s:
            groups[-1].append(step)
        else:
            groups.append([step])
    told = [group for group in groups if len(group) >= FEWEST_PAUSES]
    return replace(speed, idle_s=tuple(_pause(speed, group) for group in told))


def _pause(speed: Speed, steps: Sequence[MeasuredStep]) -> tuple[float, float]:
    """(how long, what it cost)"""
    more_s = [step.seconds - expected_s(speed, step) for step in steps]
    return median(step.pause_s for step in steps), max(median(more_s), 0.0)
