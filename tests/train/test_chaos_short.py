"""One SIGKILL of the driver, then the same command again: what CI runs of the chaos tests."""

import random
import time

import pytest

from tests.train.chaos import (
    STEPS,
    assert_same,
    chaos_config,
    committed_steps,
    finish,
    kill_tree,
    running,
    wait_for_step,
)
from tests.train.ranks import on_ranks, train

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]


def test_a_killed_driver_resumes_bit_identically(small_base, small_pack, tmp_path) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")  # shown when the test fails
    ours = chaos_config(small_base, small_pack, tmp_path / "ours")
    theirs = chaos_config(small_base, small_pack, tmp_path / "theirs")
    on_ranks(2, train, theirs)
    with running(ours, tmp_path / "first.log") as first:
        reached = wait_for_step(ours, random.Random(seed).randrange(20, STEPS - 60), first)
        kill_tree(first)
    committed = committed_steps(ours)
    with running(ours, tmp_path / "second.log") as second:
        events = finish(second, tmp_path / "second.log")
    resumed = next(e for e in events if e["event"] == "train.resumed")
    assert reached - 30 <= resumed["step"] == committed[-1]
    assert_same(ours, theirs)
