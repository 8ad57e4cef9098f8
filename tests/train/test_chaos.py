"""Ranks, all ranks, the driver and whole machines are lost at random steps; nothing changes."""

import random
import time
from dataclasses import replace

import pytest

from apps.train.config import RunConfig
from tests.train.chaos import (
    STEPS,
    assert_same,
    chaos_config,
    finish,
    kill_tree,
    on_machines,
    rank_processes,
    running,
    wait_for_step,
)
from tests.train.ranks import on_ranks, train

HUNG_S = 20.0
pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def undisturbed(small_base, small_pack, tmp_path_factory) -> RunConfig:
    config = chaos_config(small_base, small_pack, tmp_path_factory.mktemp("calm") / "run")
    on_ranks(2, train, config)
    return config


@pytest.fixture
def draw() -> random.Random:
    seed = time.time_ns()
    print(f"seed {seed}")  # shown when the test fails
    return random.Random(seed)


@pytest.mark.parametrize("victims", [1, 2])
def test_killed_ranks_are_restarted_and_nothing_changes(
    undisturbed, small_base, small_pack, tmp_path, draw, victims
) -> None:
    config = chaos_config(small_base, small_pack, tmp_path / "run")
    with running(config, tmp_path / "log") as process:
        wait_for_step(config, draw.randrange(20, STEPS - 60), process)
        ranks = rank_processes(process)
        assert len(ranks) == 2
        for rank in draw.sample(ranks, victims):
            rank.kill()
        events = finish(process, tmp_path / "log")
    assert [e["event"] for e in events].count("train.resumed") >= 1
    assert_same(config, undisturbed)


def test_a_rank_that_hangs_is_given_up_after_the_timeout(
    undisturbed, small_base, small_pack, tmp_path, draw
) -> None:
    """SIGSTOP: the process lives and answers nobody; the others wait in a collective."""
    calm = chaos_config(small_base, small_pack, tmp_path / "run")
    config = replace(calm, faults=replace(calm.faults, collective_timeout_s=HUNG_S))
    with running(config, tmp_path / "log") as process:
        wait_for_step(config, draw.randrange(20, STEPS - 60), process)
        draw.choice(rank_processes(process)).suspend()
        stopped_s = time.time()
        events = finish(process, tmp_path / "log")
    resumed_s = [e["time"] for e in events if e["event"] == "train.resumed"]
    assert 0 < resumed_s[0] - stopped_s < 10 * HUNG_S
    assert_same(config, undisturbed)


def test_a_driver_killed_again_and_again_still_arrives(
    undisturbed, small_base, small_pack, tmp_path, draw
) -> None:
    config = chaos_config(small_base, small_pack, tmp_path / "run")
    step = 0
    for _ in range(2):
        with running(config, tmp_path / "log") as process:
            step = wait_for_step(config, step + draw.randrange(20, 70), process)
            kill_tree(process)
    with running(config, tmp_path / "last") as process:
        finish(process, tmp_path / "last")
    assert_same(config, undisturbed)


def test_a_drained_and_removed_machine_costs_at_most_a_step(
    undisturbed, small_base, small_pack, tmp_path, draw
) -> None:
    """Three machines of one rank each; the one of a rank is drained, then removed."""
    config = chaos_config(small_base, small_pack, tmp_path / "run")
    printed = on_machines(config, "drain", draw.randrange(20, STEPS - 100), tmp_path / "run.yaml")
    events = [line for line in printed.splitlines() if "train.preempted" in line]
    assert len(events) >= 1
    assert_same(config, undisturbed)
