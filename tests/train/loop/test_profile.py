"""`--profile N`: a trace of N steps that says what they did."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

from apps.train.config import RunConfig
from apps.train.loop.loop import Hooks
from apps.train.loop.record import read_metrics
from apps.train.loop.worker import process_group, work
from tests.train.ranks import rows_of


def train(config: RunConfig) -> list[str]:
    """Where traces were written."""
    told: list[tuple[str, object]] = []
    hooks = Hooks(on_event=lambda name, fields: told.append((name, fields.get("trace"))))
    with process_group():
        work(config, rows_of(config), hooks=hooks)
    return [str(trace) for name, trace in told if name == "profile.written"]


def test_a_trace_has_the_steps_after_the_first_two(small_run: RunConfig) -> None:
    config = replace(small_run, steps=6, workers=1)
    (trace,) = train(replace(config, profile=2))
    assert trace == f"{config.out}/profile/steps-3-to-4.json.gz"
    events = json.loads(gzip.decompress(Path(trace).read_bytes()))["traceEvents"]
    names = [event.get("name", "") for event in events]
    updates = [name for name in names if name.startswith("Optimizer.step")]
    assert len(updates) == 2
    assert "aten::mm" in names
    plain = replace(config, out=config.out + "-plain")
    assert train(plain) == []
    losses = [[r["loss"] for r in read_metrics(out)] for out in (config.out, plain.out)]
    assert losses[0] == losses[1]


def test_a_run_that_ends_before_the_trace_does_writes_what_it_has(small_run: RunConfig) -> None:
    (trace,) = train(replace(small_run, steps=4, workers=1, profile=5))
    assert trace == f"{small_run.out}/profile/steps-3-to-4.json.gz"
    assert b"Optimizer.step" in gzip.decompress(Path(trace).read_bytes())


def test_a_run_too_short_for_a_trace_says_so(small_run: RunConfig) -> None:
    said: dict[str, object] = {}
    rows = rows_of(small_run)
    with process_group():
        hooks = Hooks(on_event=lambda name, fields: said.update({name: fields.get("reason")}))
        work(replace(small_run, steps=2, workers=1, profile=5), rows, hooks=hooks)
    assert "no step was taken after the first 2" in str(said["profile.none"])
    assert "profile.written" not in said
