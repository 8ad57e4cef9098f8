"""What a step takes by a table's figures, one by one and in sums."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from apps.common.errors import ConfigError
from apps.serve.place.speed import Speed, beyond, figures_of, shape, speed_of

MEASURED = Speed(
    step_s=0.002,
    sequence_s=1e-4,
    context_s=2e-7,
    prompt_s=3e-5,
    more_context_s=((1000.0, 1e-7), (4000.0, 4e-7)),
    attention_s=5e-9,
    ended_s=6e-6,
    idle_s=((0.05, 0.003), (1.0, 0.02)),
)


def test_rounds_together_take_what_they_take_one_by_one() -> None:
    for sequences, context in ((1, 3990), (7, 940), (30, 5000), (3, 10)):
        together = MEASURED.seconds(sequences, context, 0, rounds=40)
        apart = sum(MEASURED.seconds(sequences, context + sequences * k, 0) for k in range(40))
        assert together == pytest.approx(apart)


def test_what_exceeds_a_bound_is_summed_as_the_rounds_grow() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        bound, first, growth, rounds = rng.integers(0, [200, 200, 9, 40]).tolist()
        plain = sum(max(first + growth * k - bound, 0) for k in range(rounds + 1))
        assert beyond(bound, first, growth, rounds + 1) == plain


def test_a_pause_costs_what_was_measured_and_no_more_than_the_longest() -> None:
    pauses_s = (0.0, 0.025, 0.05, 0.525, 1.0, 60.0, np.inf)
    cold_s = [MEASURED.cold_s(pause_s) for pause_s in pauses_s]
    assert cold_s == pytest.approx([0, 0.0015, 0.003, 0.0115, 0.02, 0.02, 0.02])


def test_a_table_keeps_every_figure(tmp_path: Path) -> None:
    row = {"weights_gb": 1, "kv_bytes_per_token": 9, "speeds": {"CPU": {1: figures_of(MEASURED)}}}
    (tmp_path / "speeds.yaml").write_text(yaml.safe_dump({"models": {"tiny": row}}))
    again = shape("tiny", "CPU", str(tmp_path / "speeds.yaml")).speeds[1]
    assert figures_of(again)["idle_ms"] == pytest.approx({0.05: 3.0, 1.0: 20.0})
    assert figures_of(again)["more_context_ns"] == pytest.approx({1000.0: 100.0, 4000.0: 400.0})
    for name in ("step_s", "sequence_s", "context_s", "prompt_s", "attention_s", "ended_s"):
        assert getattr(again, name) == pytest.approx(getattr(MEASURED, name)), name
    plain = Speed(step_s=1.0, sequence_s=0.0, context_s=0.0, prompt_s=0.0)
    assert set(figures_of(plain)) == {"step_ms", "sequence_us", "context_ns", "prompt_us"}


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("step_ms", None),
        ("step_ms", -1.0),
        ("context_ns", float("nan")),
        ("ended_us", "fast"),
        ("idle_ms", 3.0),
        ("idle_ms", {0.1: "cold"}),
    ],
)
def test_a_wrong_figure_is_a_sentence(name: str, figure: object) -> None:
    figures = {**figures_of(MEASURED), name: figure}
    with pytest.raises(ConfigError, match=f"{name} of a table of speeds is"):
        speed_of(figures)


FIGURES = {"step_ms": 1, "sequence_us": 1, "context_ns": 1, "prompt_us": 1}
ROW = {"weights_gb": 1, "kv_bytes_per_token": 9, "speeds": {"CPU": {1: FIGURES}}}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"models": {"tiny": 3}}, "tiny is 3; expected a mapping"),
        ({"models": {"tiny": {**ROW, "weights_gb": "big"}}}, "weights_gb of a table"),
        ({"models": {"tiny": {**ROW, "kv_bytes_per_token": None}}}, "kv_bytes_per_token of a"),
        ({"models": {"tiny": {**ROW, "speeds": None}}}, "speeds is None; expected a mapping"),
        ({"models": {"tiny": {**ROW, "speeds": {"CPU": 5}}}}, "CPU is 5; expected a mapping"),
        ({"models": {"tiny": {**ROW, "speeds": {"CPU": {"two": FIGURES}}}}}, "have 'two'; exp"),
        ({"models": {"tiny": {**ROW, "speeds": {"CPU": {0: FIGURES}}}}}, "have 0; expected"),
        (
            {"models": {"tiny": {**ROW, "speeds": {"CPU": {1: dict.fromkeys(FIGURES, 0)}}}}},
            "a step takes time",
        ),
    ],
)
def test_a_table_of_ones_own_that_is_none_is_a_sentence(
    tmp_path: Path, table: dict[str, object], said: str
) -> None:
    (tmp_path / "speeds.yaml").write_text(yaml.safe_dump(table))
    with pytest.raises(ConfigError, match=said):
        shape("tiny", "CPU", str(tmp_path / "speeds.yaml"))
