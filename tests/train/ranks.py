"""Run a function on several gloo ranks, without Ray.

The ranks are forked from a server that has imported torch once, so a pair of ranks costs a fraction
of a second. Functions must be importable (top level of a module) and return something picklable.
"""

import contextlib
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from apps.common.packs import open_pack
from apps.train.batches.micro_batch import PackRows
from apps.train.checkpoint.origin import base_digest
from apps.train.config import RunConfig
from apps.train.loop.loop import Hooks
from apps.train.loop.worker import work

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.train.ranks"])


def rows_of(config: RunConfig) -> PackRows:
    """The rows that a run trains on."""
    pack = open_pack(config.data)
    return PackRows(pack.split("train"), pack.info.pad_id)


def on_ranks(world_size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """`function(*args)` on every rank of a new process group; the results in rank order."""
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/store"
        queue = _CONTEXT.Queue()
        processes = [
            _CONTEXT.Process(target=_rank, args=(queue, store, r, world_size, function, args))
            for r in range(world_size)
        ]
        for process in processes:
            process.start()
        found = dict(queue.get(timeout=240) for _ in processes)
        for process in processes:
            process.join(timeout=30)
    for rank, (is_error, value) in sorted(found.items()):
        assert not is_error, f"rank {rank}:\n{value}"
    return [found[rank][1] for rank in range(world_size)]


def _rank(queue, store: str, rank: int, world_size: int, function, args) -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "LOCAL_RANK": str(rank)}
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=world_size
        )
        result = function(*args)
        dist.destroy_process_group()
        queue.put((rank, (False, result)))
    except BaseException:
        queue.put((rank, (True, traceback.format_exc())))
    queue.close()
    queue.join_thread()
    os._exit(0)  # a rank whose peer was killed would wait for it at exit


def mark(config: RunConfig) -> dict[str, Any]:
    """What the checkpoints of a run on local folders say that it was trained from."""
    base = base_digest(config.base, with_weights=config.is_partial)
    return {"identity": {"base": base, "data": open_pack(config.data).info.digest}}


class Killed(Exception):
    """Stands for SIGKILL where the whole process must live on."""


def train(
    config: RunConfig,
    kill_after: int | None = None,
    environment: dict[str, str] | None = None,
    stop_after: int | None = None,
) -> list[dict[str, Any]]:
    """Train on this rank as `apps.train run` does; records of the steps it took.

    `kill_after` ends it right after that step, without a goodbye; `stop_after` asks it to stop
    after that one.
    """
    os.environ.update(environment or {})
    records: list[dict[str, Any]] = []

    def on_step(record: dict[str, Any]) -> None:
        records.append(record)
        if record["step"] == kill_after:
            raise Killed

    pack = open_pack(config.data)
    rows, val = (PackRows(pack.split(name), pack.info.pad_id) for name in ("train", "val"))
    peers_die = () if kill_after is None else (RuntimeError,)
    with contextlib.suppress(Killed, *peers_die):
        hooks = Hooks(on_step=on_step, stopped=lambda: len(records) + 1 == stop_after)
        work(config, rows, val, commit=mark(config), hooks=hooks)
    return records


def board(folder: str) -> dict[str, dict[int, float]]:
    """Values of every scalar in a folder of TensorBoard event files, by step."""
    events = EventAccumulator(folder)
    events.Reload()
    names = events.Tags()["scalars"]
    return {name: {e.step: e.value for e in events.Scalars(name)} for name in names}
