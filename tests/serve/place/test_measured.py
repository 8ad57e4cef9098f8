"""The figures that steps were made from are found again in them."""

from dataclasses import replace

import numpy as np
import pytest

from apps.serve.place.measured import KNOTS, MeasuredStep, expected_s, fitted
from apps.serve.place.speed import Speed

LARGEST = 20_000
MADE = Speed(
    step_s=0.002,
    sequence_s=1e-4,
    context_s=2e-7,
    prompt_s=3e-5,
    more_context_s=((KNOTS[0] * LARGEST, 1e-7), (KNOTS[1] * LARGEST, 4e-7)),
    attention_s=5e-9,
    ended_s=6e-6,
    idle_s=((0.05, 0.003), (1.0, 0.02)),
)


def made(rng: np.random.Generator, speed: Speed, pause_s: float = 0.0) -> MeasuredStep:
    sequences = int(rng.integers(0, 17))
    piece = int(rng.integers(1, 257)) if sequences == 0 or rng.random() < 0.3 else 0
    step = MeasuredStep(
        seconds=0.0,
        sequences=sequences,
        context=int(rng.uniform(sequences, sequences * LARGEST / 16)),
        prompt_tokens=piece,
        prompt_context=piece * int(rng.integers(piece + 1, 1500)),
        ended_tokens=int(rng.integers(10, 900)) if rng.random() < 0.2 else 0,
        pause_s=pause_s,
    )
    return replace(step, seconds=expected_s(speed, step))


def steps_of(speed: Speed) -> list[MeasuredStep]:
    rng = np.random.default_rng(0)
    steps = [made(rng, speed) for _ in range(2000)]
    steps.append(
        replace(steps[0], sequences=16, context=LARGEST, prompt_tokens=0, prompt_context=0)
    )
    steps[-1] = replace(steps[-1], seconds=expected_s(speed, steps[-1]))
    return steps + [made(rng, speed, pause_s) for pause_s in (0.05, 1.0) * 5]


def test_the_figures_come_out_as_they_went_in() -> None:
    speed = fitted(steps_of(MADE))
    for name in ("step_s", "sequence_s", "context_s", "prompt_s", "attention_s", "ended_s"):
        assert getattr(speed, name) == pytest.approx(getattr(MADE, name), rel=1e-3), name
    for name in ("more_context_s", "idle_s"):
        found, wanted = getattr(speed, name), getattr(MADE, name)
        assert np.array(found) == pytest.approx(np.array(wanted), rel=1e-3), name


def test_steps_that_the_machine_held_up_say_little_and_noise_is_no_bias() -> None:
    rng = np.random.default_rng(1)
    clean = steps_of(MADE)
    noisy = [replace(step, seconds=step.seconds * rng.gamma(10, 0.1)) for step in clean]
    held = [replace(s, seconds=s.seconds + (i % 100 == 0) * 0.5) for i, s in enumerate(noisy)]
    speed = fitted(held)
    at_once = [step for step in clean if not step.pause_s]
    total_s = sum(step.seconds for step in at_once)
    assert sum(expected_s(speed, step) for step in at_once) == pytest.approx(total_s, rel=0.06)


def test_a_figure_that_would_be_less_than_nothing_is_nothing() -> None:
    cheaper = replace(MADE, context_s=0.0, more_context_s=(), attention_s=-1e-9)
    speed = fitted(steps_of(cheaper))
    assert speed.attention_s == 0.0 and speed.context_s >= 0.0
    assert all(more_s > 0 for _, more_s in speed.more_context_s)
    assert speed.prompt_s == pytest.approx(MADE.prompt_s, rel=0.1)
