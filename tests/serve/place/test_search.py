"""Placements against all there are, against even replicas, and against AlpaServe's greedy."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from apps.common.errors import InputError
from apps.serve.place.arrivals import bursty, gamma, power_law, read_azure, split
from apps.serve.place.output import markets, service
from apps.serve.place.placement import (
    MEMORY_SHARE,
    Cluster,
    Group,
    Model,
    fits,
    is_servable,
    placement,
)
from apps.serve.place.search import (
    Problem,
    alpaserve,
    even,
    every_placement,
    improved,
    neighbours,
    search,
)
from apps.serve.place.simulator import Slo
from apps.serve.place.speed import shape

AZURE = Path(os.environ.get("CRIA_TEST_DATA", "/nowhere")) / "azure-llm-2023"
TRACE = AZURE / "AzureLLMInferenceTrace_conv.csv"
SLO = Slo(ttft_s=2.0, tpot_s=0.08)

needs_azure = pytest.mark.skipif(
    not TRACE.exists(), reason="Azure's trace is under CRIA_TEST_DATA only"
)


def models(count: int, every: int = 3) -> list[Model]:
    """Each `every`-th is a 13B, the others are 7B."""
    names = ["llama-13b" if number % every == 0 else "llama-7b" for number in range(count)]
    return [
        Model(name=f"m{number}", path="p", shape=shape(name, "A100-80GB"))
        for number, name in enumerate(names)
    ]


def small(seed: int, num_models: int, num_gpus: int) -> Problem:
    rng = np.random.default_rng(seed)
    traffic = gamma(float(rng.uniform(4, 14)) * num_gpus, 15, seed, cv=3)
    return Problem(
        models=models(num_models),
        cluster=Cluster(num_gpus=num_gpus, memory_bytes=float(rng.choice([40e9, 80e9]))),
        arrivals=split(traffic, power_law(num_models, 1.5)),
        slo=SLO,
    )


@pytest.mark.parametrize("seed", range(4))
def test_small_instances_are_solved_to_the_optimum(seed: int) -> None:
    problem = small(seed, 2, 2)
    found = search(problem, problem, seconds=5)
    whole = every_placement(problem, 10_000)
    assert whole and found.is_optimal
    assert problem.score(found.best).attained == max(problem.score(g).attained for g in whole)


@pytest.mark.parametrize(("num_models", "num_gpus"), [(24, 32), (2, 3)])
def test_when_the_time_is_over_the_best_so_far_is_proposed(num_models: int, num_gpus: int) -> None:
    """Of many models the greedy is cut, of few the placements that were to be tried; at least the
    even replicas are beaten or kept."""
    problem = small(0, num_models, num_gpus)
    found = search(problem, problem, seconds=1e-6)
    assert not problem.score(found.even) > problem.score(found.best)
    assert found.is_greedy_cut and not found.is_optimal
    assert problem.simulations < 10


def test_every_placement_is_counted_once() -> None:
    """One model, two GPUs, degrees 1 and 2: on one GPU, on both apart, by tensor, by pipeline."""
    problem = small(0, 1, 2)
    assert every_placement(problem, 100) == [
        (Group(tensor=1, pipeline=1, models=(0,)),),
        (Group(tensor=1, pipeline=1, models=(0,)),) * 2,
        (Group(tensor=1, pipeline=2, models=(0,)),),
        (Group(tensor=2, pipeline=1, models=(0,)),),
    ]
    assert every_placement(small(0, 3, 4), 100) is None
    assert every_placement(small(0, 40, 4), 2000) is None  # 2 ** 40 sets of models are not listed


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_fit_and_local_search_only_climbs(seed: int) -> None:
    problem = small(seed, 3, 4)
    start, stop_s = even(problem), time.monotonic() + 3
    for groups in neighbours(problem, start):
        assert is_servable(groups) and sum(group.num_gpus for group in groups) <= 4
        assert all(fits(group, problem.models, problem.cluster) for group in groups)
    better = improved(problem, start, lambda: time.monotonic() > stop_s)
    assert not problem.score(start) > problem.score(better)


def test_even_replicas_are_even() -> None:
    problem = small(1, 2, 4)
    assert even(problem) == placement(
        [Group(tensor=1, pipeline=1, models=(index,)) for index in (0, 0, 1, 1)]
    )
    crowded = even(small(1, 4, 2))
    assert sorted(index for group in crowded for index in group.models) == [0, 1, 2, 3]


def test_what_may_be_taken_away_is_never_the_only_place_of_a_model() -> None:
    groups = placement(
        [Group(tensor=1, pipeline=1, models=held) for held in ((0,), (0,), (0, 1), (1,))]
    )
    assert markets(groups) == ["stable", "spot", "stable", "spot"]


def test_each_model_on_a_shared_gpu_gets_room_for_its_own_weights() -> None:
    held = models(3)  # a 13B and two 7B
    entries = service((Group(tensor=1, pipeline=1, models=(0, 1, 2)),), held)["models"]
    shares = [float(entry["options"]["server_args"][1]) for entry in entries]
    assert sum(shares) == pytest.approx(MEMORY_SHARE, abs=0.002)
    assert all(s * 80e9 > m.shape.weights_bytes for s, m in zip(shares, held, strict=True))


@needs_azure
@pytest.mark.parametrize(("count", "gpus", "times"), [(8, 16, 4.0)])
def test_on_azures_trace_half_as_many_again_are_within_the_slo(count, gpus, times) -> None:
    requests = split(read_azure(str(TRACE)), power_law(count)).faster(times)
    whole, sample = (
        Problem(
            models=models(count, 2),
            cluster=Cluster(num_gpus=gpus, memory_bytes=80e9),
            arrivals=some,
            slo=SLO,
        )
        for some in (requests, requests.busiest(2000))
    )
    found = search(sample, whole, seconds=5)
    best, greedy, replicas = (
        whole.score(groups).attained for groups in (found.best, found.greedy, found.even)
    )
    assert best >= greedy and best >= 1.5 * replicas


def test_made_up_traffic_has_its_rate_and_its_bursts() -> None:
    calm, wild = gamma(10, 600, 0, cv=1), bursty(10, 6000, 0)
    assert calm.num_requests == pytest.approx(6000, rel=0.1)
    assert wild.num_requests == pytest.approx(60_000, rel=0.4)
    minutes = np.bincount((wild.at_s // 60).astype(int))
    assert minutes.std() > 0.7 * minutes.mean()
    shared = split(calm, power_law(4))
    shares = np.bincount(shared.model) / shared.num_requests
    assert shares == pytest.approx(np.array([12, 6, 4, 3]) / 25, abs=0.03)


def test_the_greedy_fills_groups_that_are_all_alike() -> None:
    groups = alpaserve(small(2, 3, 4))
    assert len({(group.tensor, group.pipeline) for group in groups}) == 1


@pytest.mark.parametrize("shares", [(1e308, 1e308), (3, 3), power_law(2, 0), power_law(2, 1e-9)])
def test_shares_may_be_of_any_size(shares: tuple[float, float]) -> None:
    asked = split(gamma(10.0, 100.0, seed=1), shares).model
    assert 0.4 < asked.mean() < 0.6


@pytest.mark.parametrize(("exponent", "asked"), [(1e6, 0), (-1e6, 2)])
def test_a_steep_law_asks_one_model_only(exponent: float, asked: int) -> None:
    assert set(split(gamma(10.0, 10.0, seed=1), power_law(3, exponent)).model.tolist()) == {asked}


def write_trace(folder: Path, *rows: str) -> str:
    file = folder / "trace.csv"
    file.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    return str(file)


def test_a_trace_over_the_end_of_summer_time_is_as_long_as_it_was(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        rows = ("2023-10-29 02:30:00.0000000,1,1", "2023-10-29 03:00:00,2,2")
        assert read_azure(write_trace(tmp_path, *rows)).seconds == 1800
        rows = ("2023-10-29 02:30:00+02:00,1,1", "2023-10-29T01:00:00Z,2,2")
        assert read_azure(write_trace(tmp_path, *rows)).seconds == 1800
        rows = ("2023-10-29 02:30:00.0000000+02:00,1,1", "2023-10-29 02:00:00.000000+01:00,2,2")
        assert read_azure(write_trace(tmp_path, *rows)).seconds == 1800
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "row", ["2023-11-16 18:15:46,1," + "9" * 30, "1698546600,1,1", "x", ",,", "2023-11-16,-1,1"]
)
def test_a_row_that_is_none_is_told(tmp_path: Path, row: str) -> None:
    with pytest.raises(InputError, match="has a row that is none"):
        read_azure(write_trace(tmp_path, row))
