"""Ray Data runs the units: one unit per block, any worker, any order, retried when a worker dies.

The only file of this app, besides `__main__`, that imports ray. What a unit does is pure and lies
elsewhere; what is done is known from manifests in storage, never from Ray's state.
"""

# ray and pyarrow carry no types:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false, reportUntypedFunctionDecorator=false

import functools
import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import ray
import ray.data
from ray.data import DataContext, TaskPoolStrategy
from ray.util import metrics

from apps.common.errors import CriaError, InputError
from apps.data.units import Args, Manifest, Process, RunUnits, Unit, finish, split_done


def ray_units(workers: int) -> RunUnits:
    """Units as Ray Data tasks, at most `workers` at a time; their processes start at once."""
    for _ in range(workers):
        _start_worker.remote()
    return functools.partial(run_units, workers=workers)


@ray.remote(num_cpus=1)
def _start_worker() -> None:
    """Its process has read this file, and with it Ray Data: a second of work on its core.

    Ray Data would start the second process only when the first is busy.
    """


def num_workers() -> int:
    """Real CPUs of this machine, or those of the cluster when it has more than one node."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) == 1:
        return os.cpu_count() or 1
    return max(1, int(sum(node["Resources"].get("CPU", 0) for node in nodes)))


def run_units(
    units: Sequence[Unit[Args]],
    process: Process[Args, Manifest],
    folder: str,
    on_done: Callable[[Manifest], None] | None = None,
    *,
    workers: int,
) -> list[Manifest]:
    """Run the units that have no manifest in `folder`; return all manifests in their order.

    `on_done(manifest)` is called once per unit, in the order of completion.
    Raises the unit's own CriaError; a unit whose process is killed is run again elsewhere.
    """
    manifests, pending = split_done(units, process, folder)
    for manifest in manifests.values():
        if on_done:
            on_done(manifest)
    for key, manifest in _on_ray(pending, process, folder, workers):
        manifests[key] = manifest
        if on_done:
            on_done(manifest)
    return [manifests[unit.key] for unit in units]


def _on_ray(
    pending: list[Unit[Args]], process: Process[Args, Manifest], folder: str, workers: int
) -> Iterator[tuple[str, Manifest]]:
    if not pending:
        return
    rows = [
        {"units": pickle.dumps([(unit.key, unit) for unit in share])}
        for share in _shares(pending, workers)
    ]
    with DataContext.current(_data_context()):
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _task(f"{pending[0].stage} of {len(pending)}", process, folder),
            batch_format="pyarrow",
            batch_size=None,
            compute=TaskPoolStrategy(size=min(workers, len(rows))),
            num_cpus=1,
        )
    for row in dataset.iter_rows():
        if row["error"] is not None:
            raise pickle.loads(row["error"])
        yield row["key"], pickle.loads(row["manifest"])


def _shares(units: list[Unit[Args]], workers: int) -> Iterator[list[Unit[Args]]]:
    """What each task does: a part of what is left, so tasks are few and all end at once.

    Between two tasks a worker waits 0.2 s for the driver, which looks every 0.1 s.
    """
    start = 0
    while start < len(units):
        size = -(-(len(units) - start) // (3 * workers))
        yield units[start : start + size]
        start += size


def _task(
    name: str, process: Process[Args, Manifest], folder: str
) -> Callable[[pa.Table], Iterator[pa.Table]]:
    """The dashboard counts tasks by their function's name: MapBatches(clean of 40) 3 / 12."""

    def task(batch: pa.Table) -> Iterator[pa.Table]:
        return _finish_units(batch, process=process, folder=folder)

    task.__name__ = name
    return task


def _finish_units(
    batch: pa.Table, *, process: Process[Args, Manifest], folder: str
) -> Iterator[pa.Table]:
    """Errors travel as values: Ray would wrap them, and retry what cannot succeed."""
    for pickled in batch["units"].to_pylist():
        for key, unit in pickle.loads(pickled):
            row: dict[str, str | bytes | None] = {"key": key, "manifest": None, "error": None}
            try:
                _check_code(unit, key)
                row["manifest"] = pickle.dumps(finish(unit, process, folder))
            except CriaError as error:
                row["error"] = pickle.dumps(error)
            yield pa.Table.from_pylist([row], schema=_FINISHED)


def _check_code(unit: Unit[Args], key: str) -> None:
    """Raises InputError where this process would leave other files than the command expects."""
    if unit.key != key:
        raise InputError(
            f"The sources of Cria on {socket.gethostname()} are not those that this command began "
            "with: they changed meanwhile, or that machine has others. Run the same command again, "
            "with one version everywhere."
        )


_FINISHED = pa.schema([("key", pa.string()), ("manifest", pa.binary()), ("error", pa.binary())])


def _data_context() -> DataContext:
    """The command shows its own progress; Ray's bars would write over it."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Manifests need no memory to be shared out. Its limits are zero for the first second of each
    # execution, and one task alone would run.
    context.op_resource_reservation_enabled = False
    context.target_max_block_size = 1  # every unit's manifest is passed on at once
    return context


def count(name: str, value: float, **tags: str) -> None:
    """Add to the Ray metric `ray_cria_data_<name>`, which the dashboard and Prometheus read."""
    if value:
        _counter(name, tuple(sorted(tags))).inc(value, tags)


@functools.cache
def _counter(name: str, tag_keys: tuple[str, ...]) -> metrics.Counter:
    return metrics.Counter(f"cria_data_{name}", HELP[name], tag_keys=tag_keys)


HELP = {
    "records_total": "Records of the raw dump by outcome (kept, dropped, quarantined) and rule.",
    "input_bytes_total": "Bytes of the raw dump that were read, after decompression.",
    "packed_rows_total": "Packed rows written, by split (train, val).",
    "packed_tokens_total": "Tokens in packed rows without their padding, by split (train, val).",
}
"""What Prometheus says of each counter."""
