"""All ranks choose the checkpoint to resume from; none waits in silence for another to read."""

import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _set_pg_timeout

from apps.train.checkpoint import agree, checkpoint
from apps.train.checkpoint.checkpoint import Checkpoints
from apps.train.config import CheckpointConfig
from tests.train.ranks import on_ranks

TIMEOUT_S = 2.0


def save(run: str) -> None:
    """Checkpoints of the steps 1 and 2, a file a rank."""
    writer = Checkpoints(run, CheckpointConfig(), "cpu")
    for step in (1, 2):
        writer.save(
            {"model": {"w": torch.ones(3), f"of {dist.get_rank()}": torch.ones(5)}}, {"step": step}
        )
    writer.wait()


def choose(run: str, slow_s: float = 0.0) -> tuple[int, list[str], list[str]]:
    """The step that is chosen, what is told, and the files whose contents this rank reads."""
    told: list[str] = []
    read: list[str] = []
    digest = checkpoint._digest

    def seen(path: str) -> str:
        read.append(Path(path).name)
        time.sleep(slow_s if path.endswith("__1_0.distcp") else 0)
        return digest(path)

    checkpoint._digest = seen
    _set_pg_timeout(timedelta(seconds=TIMEOUT_S), dist.group.WORLD)
    found = agree.newest(run, "digest", told.append)
    return found.step, told, read


def test_every_rank_reads_its_share_of_the_files(tmp_path) -> None:
    on_ranks(2, save, str(tmp_path))
    (step, told, first), (same, untold, second) = on_ranks(2, choose, str(tmp_path))
    assert step == same == 2
    assert told == untold == []
    newest = checkpoint.committed(str(tmp_path))[0]
    assert sorted(first + second) == sorted(newest.commit["files"])
    assert min(len(first), len(second)) == 1


def test_a_fault_that_one_rank_finds_counts_for_all_and_is_told_once(tmp_path) -> None:
    on_ranks(2, save, str(tmp_path))
    for name in (".metadata", "__0_0.distcp", "__1_0.distcp"):
        path = tmp_path / "checkpoints/step-00000002" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        (step, told, _), (same, untold, _) = on_ranks(2, choose, str(tmp_path))
        assert step == same == 1
        assert untold == []
        assert told == [
            f"Skipped checkpoint step-00000002: the contents of its file {name} are not what was "
            "written."
        ]
        path.write_bytes(whole)


def test_reading_may_take_longer_than_a_collective(tmp_path) -> None:
    on_ranks(2, save, str(tmp_path))
    found = on_ranks(2, choose, str(tmp_path), 2 * TIMEOUT_S)
    assert [step for step, *_ in found] == [2, 2]
