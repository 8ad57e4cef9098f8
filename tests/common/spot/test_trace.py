"""Traces, read and made up."""

import json
from pathlib import Path

import numpy as np
import pytest

from apps.common.errors import ConfigError, InputError
from apps.common.spot import trace
from apps.common.spot.generator import GeneratorConfig, generate


def zone(path: Path, data: object, gap_seconds: float = 600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"metadata": {"gap_seconds": gap_seconds}, "data": data}))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    market = generate(GeneratorConfig(hours=48, seed=5))
    trace.write(market, str(tmp_path / "generated"))
    (again,) = trace.read([str(tmp_path)], 1)
    assert (again.name, again.tick_s, again.zones) == ("generated", 600, market.zones)
    assert np.array_equal(again.up, market.up)


def test_a_zone_is_up_when_all_machines_of_the_job_are_there(tmp_path: Path) -> None:
    zone(tmp_path / "aws" / "a.json", [0, 2, 4, 4])
    zone(tmp_path / "aws" / "b.json", [4, 4, 0, 0, 4])
    (market,) = trace.read([str(tmp_path)], 4)
    assert market.places == [("b",), ("b",), ("a",), ("a",)]
    assert market.availability == 1 and [one.zones for one in market.alone()] == [("a",), ("b",)]


def test_every_folder_with_files_is_a_market(tmp_path: Path) -> None:
    zone(tmp_path / "x" / "one" / "a.json", [1])
    zone(tmp_path / "x" / "two" / "a.json", [1], gap_seconds=30)
    assert [market.name for market in trace.read([str(tmp_path)], 1)] == ["one", "two"]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ("no", "is no availability trace"),
        ([], "has no ticks"),
        ([[1]], "has no ticks"),
        ([0.5], "more than whole numbers"),
        ([float("nan")], "more than whole numbers"),
        (["1"], "more than whole numbers"),
        ([1e400], "more than whole numbers"),
        ([10**30], "more than whole numbers"),
        ([3, -1], "counts -1 machines"),
    ],
)
def test_a_file_that_is_no_trace_is_a_sentence(tmp_path: Path, data, complaint: str) -> None:
    zone(tmp_path / "a.json", data)
    with pytest.raises(InputError, match=complaint):
        trace.read([str(tmp_path)], 1)


@pytest.mark.parametrize("gap_seconds", [0, -600, float("inf"), float("nan")])
def test_a_tick_that_is_no_time_is_a_sentence(tmp_path: Path, gap_seconds: float) -> None:
    zone(tmp_path / "a.json", [1, 1], gap_seconds)
    with pytest.raises(InputError, match="has no ticks"):
        trace.read([str(tmp_path)], 1)


def test_mixed_ticks_and_empty_folders_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no traces"):
        trace.read([str(tmp_path)], 1)
    zone(tmp_path / "a.json", [1])
    zone(tmp_path / "b.json", [1], gap_seconds=30)
    with pytest.raises(InputError, match="mixes ticks"):
        trace.read([str(tmp_path)], 1)


def test_the_generator_keeps_its_stated_means() -> None:
    market = generate(GeneratorConfig(zones=4, up_h=6, down_h=2, hours=20000, seed=1))
    assert market.up.mean() == pytest.approx(0.75, abs=0.03)
    spells = (np.diff(market.up.astype(int), axis=1) == 1).sum()
    assert 4 * 20000 / spells > 8  # the shortest fall between two ticks
    one, other = (generate(GeneratorConfig(seed=3)) for _ in range(2))
    assert np.array_equal(one.up, other.up)


def test_a_generator_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="up_h"):
        GeneratorConfig(up_h=0)
