"""Of two commands that train one run where no lock reaches, the later one goes on."""

from dataclasses import replace
from pathlib import Path

import pytest

from apps.common.files import storage
from apps.train.checkpoint import checkpoint
from apps.train.checkpoint.fence import FENCE_NAME, Fence, Superseded, next_number
from apps.train.config import RunConfig
from apps.train.loop.loop import Hooks
from apps.train.loop.worker import process_group, work
from tests.train.ranks import on_ranks, rows_of

EARLIER, LATER = 1000.0, 2000.0


def hold(run: str, number: int, started_s: float) -> None:
    """As the ranks of another machine's command do."""
    held = {"token": "theirs", "host": "node-9", "number": number, "started_s": started_s}
    storage.write_json(storage.join(run, FENCE_NAME), held)


def superseded_after(config: RunConfig, step: int) -> str:
    """Train until another command has taken the run over, after that step; what is said of it."""
    held = Fence(config.out, "ours", 1, LATER)  # its clock is ahead

    def on_step(record: dict) -> None:
        if record["step"] == step:
            hold(config.out, 2, EARLIER)

    rows = rows_of(config)
    with pytest.raises(Superseded) as caught:
        work(config, rows, hooks=Hooks(on_step=on_step), fence=held)
    with pytest.raises(Superseded):  # nor does another attempt of the same command go on
        work(config, rows, fence=held)
    return str(caught.value)


def test_a_command_whose_run_was_taken_over_stops_on_every_rank(small_run: RunConfig) -> None:
    """At its next checkpoint, which it does not write; what it wrote before stays."""
    said = on_ranks(2, superseded_after, small_run, 3)
    assert said[0] == said[1] and f"on node-9, trains {small_run.out} now, so this one" in said[0]
    assert [saved.step for saved in checkpoint.committed(small_run.out)] == [2]


def test_it_leaves_the_metrics_of_the_other_command_alone(small_run: RunConfig, tmp_path) -> None:
    """In a bucket, where the whole file is written again and again."""
    config = replace(small_run, out=f"memory://{tmp_path.name}", workers=1)
    theirs = b'{"step": 1, "seconds": 1.0}\n'
    storage.write_atomic(storage.join(config.out, "metrics.jsonl"), theirs)
    with process_group():
        superseded_after(config, 1)
    assert storage.read_bytes(storage.join(config.out, "metrics.jsonl")) == theirs


@pytest.mark.parametrize("number", [0, 1])
def test_the_run_of_a_machine_that_is_gone_is_taken_over(number: int, tmp_path: Path) -> None:
    """Though its clock was ahead; a run without a fence is anybody's."""
    run = str(tmp_path)
    hold(run, number, LATER)
    ours = Fence(run, "ours", next_number(run), EARLIER)
    assert ours.newer_host() is None
    with process_group():
        ours.take()
        ours.take()  # the next attempt of the same command
    assert storage.read_json(str(tmp_path / FENCE_NAME))["token"] == "ours"
    assert Fence(run, "theirs", number, LATER).newer_host()
    assert Fence(run).newer_host() is None


def test_a_run_of_an_older_version_is_taken_over(tmp_path: Path) -> None:
    run = str(tmp_path)
    storage.write_json(
        storage.join(run, FENCE_NAME), {"token": "theirs", "host": "node-9", "started_s": LATER}
    )
    assert Fence(run, "ours", next_number(run), EARLIER).newer_host() is None


def test_of_two_commands_that_began_before_either_had_ranks_the_later_one_goes_on(
    tmp_path: Path,
) -> None:
    run = str(tmp_path)
    earlier, later = (
        Fence(run, token, next_number(run), started_s)
        for token, started_s in (("a", EARLIER), ("b", LATER))
    )
    with process_group():
        earlier.take()
        later.take()
    assert earlier.newer_host() and later.newer_host() is None
