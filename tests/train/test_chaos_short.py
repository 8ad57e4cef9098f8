"""The driver is killed or stopped, then the same command again: what CI runs of the chaos tests."""

import random
import signal
import subprocess
import time
from dataclasses import replace

import pytest

from apps.train.config import RunConfig
from apps.train.loop.record import read_metrics
from apps.train.rank import GAUGES
from tests.train.chaos import (
    STEPS,
    assert_same,
    chaos_config,
    committed_steps,
    finish,
    kill_tree,
    ray_gauges,
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
    priced = replace(theirs.metrics, usd_per_hour=36.0, peak_tflops=1.0, val_every_steps=20)
    ours = replace(ours, metrics=priced)
    with running(ours, tmp_path / "second.log", RAY_metrics_report_interval_ms="250") as second:
        prometheus_sees_the_steps(ours, reached, second)
        events = finish(second, tmp_path / "second.log")
    resumed = next(e for e in events if e["event"] == "train.resumed")
    assert reached - 30 <= resumed["step"] == committed[-1]
    assert_same(ours, theirs)


def test_ctrl_c_saves_the_step_it_is_at_and_the_same_command_goes_on(
    small_base, small_pack, tmp_path
) -> None:
    config = chaos_config(small_base, small_pack, tmp_path / "run")
    log = tmp_path / "first.log"
    with running(config, log) as first:
        wait_for_step(config, 20, first)
        first.send_signal(signal.SIGINT)
        assert first.wait(timeout=60) == 130
    step = read_metrics(config.out)[-1]["step"]
    assert f"Stopped after step {step} of {STEPS}, which is saved; run the" in log.read_text()
    assert committed_steps(config)[-1] == step < STEPS
    with running(config, tmp_path / "second.log") as second:
        events = finish(second, tmp_path / "second.log")
    assert [e["step"] for e in events if e["event"] == "train.resumed"] == [step]
    records = read_metrics(config.out)
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert events[-1]["event"] == "train.done"
    assert events[-1]["first_loss"] == records[0]["loss"]


def prometheus_sees_the_steps(
    config: RunConfig, step: int, process: subprocess.Popen[bytes]
) -> None:
    """Every gauge is on Ray's metrics port, with the value that metrics.jsonl has for its step."""
    seen: dict[str, float] = {}
    while seen.keys() != set(GAUGES) or seen["step"] <= step:
        assert process.poll() is None, f"the run ended and Prometheus had seen {seen}"
        time.sleep(0.2)
        seen = ray_gauges(process)
    records = {record["step"]: record for record in read_metrics(config.out)}
    assert seen["loss"] in [r["loss"] for n, r in records.items() if abs(n - seen["step"]) <= 1]
    assert 0 < seen["mfu_packed"] < seen["mfu"] and seen["usd"] > 0
