"""A unit of work: a pure function's arguments, its folder, and the manifest that says it is done.

    folder/<key>/...      what `process` wrote
    folder/<key>.json     its manifest, written last; a unit that has one is never done again

The key digests the stage, the arguments and the code, so another configuration, input or version
never picks up stale work, and any number of workers, in any order, leave the same files.
"""

import functools
import hashlib
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import orjson

import apps
from apps.common.command.allocator import collect_rarely, keep_freed_memory
from apps.common.errors import CriaError
from apps.common.files import config as configs
from apps.common.files import storage

Args = TypeVar("Args")
Manifest = TypeVar("Manifest")


@dataclass(frozen=True, slots=True)
class Process(Generic[Args, Manifest]):
    """What is done with each unit of a stage, and the dataclass that it returns."""

    run: Callable[[Args, str], Manifest]
    """`run(args, folder_uri)` writes files under folder_uri; the same arguments give the same
    bytes. Runs in a worker process: top-level functions or functools.partial of them."""
    manifest: type[Manifest]


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit(Generic[Args]):
    stage: str
    name: str
    """For people: the file and range, as an error should name it."""
    args: Args
    """A dataclass of what JSON can hold."""

    @property
    def key(self) -> str:
        payload = orjson.dumps([self.stage, code_digest(), self.args], option=orjson.OPT_SORT_KEYS)
        return f"{self.stage}-{hashlib.blake2b(payload, digest_size=12).hexdigest()}"


class RunUnits(Protocol):
    """How units are run: `run_serially` here, `pipeline.run_units` on Ray."""

    def __call__(
        self,
        units: Sequence[Unit[Args]],
        process: Process[Args, Manifest],
        folder: str,
        on_done: Callable[[Manifest], None] | None = None,
    ) -> list[Manifest]: ...


class Count(Protocol):
    """How a metric grows: `pipeline.count` on Ray."""

    def __call__(self, name: str, value: float, **tags: str) -> None: ...


@functools.cache
def code_digest() -> str:
    """Of the sources that decide what the data app writes."""
    return digest_of_sources(Path(apps.__file__).parent)


def digest_of_sources(root: Path) -> str:
    """Of every source of common/ and data/ under `root`, at any depth, with its relative path."""
    digest = hashlib.blake2b(digest_size=16)
    kinds = ("common/**/*.py", "data/**/*.py", "data/**/*.yaml")
    for source in sorted(path for kind in kinds for path in root.glob(kind)):
        name = source.relative_to(root).as_posix()
        digest.update(name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()


def finish(unit: Unit[Args], process: Process[Args, Manifest], folder: str) -> Manifest:
    """Run one unit unless its manifest is there; return the manifest."""
    keep_freed_memory()
    collect_rarely()
    manifest_uri = storage.join(folder, f"{unit.key}.json")
    if storage.exists(manifest_uri):
        return configs.from_dict(process.manifest, storage.read_json(manifest_uri))
    try:
        manifest = process.run(unit.args, storage.join(folder, unit.key))
    except CriaError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise CriaError(
            f"{unit.name} failed: {type(error).__name__}: {error} "
            f"({Path(last.filename).name}:{last.lineno}). The units already done are kept; "
            "the same command goes on from there."
        ) from error
    storage.write_json(manifest_uri, configs.to_dict(manifest))
    return manifest


def split_done(
    units: Sequence[Unit[Args]], process: Process[Args, Manifest], folder: str
) -> tuple[dict[str, Manifest], list[Unit[Args]]]:
    """The manifests that exist, by key, and the units still to run."""
    present = set(storage.list_dir(folder)) if storage.exists(folder) else set[str]()
    done: dict[str, Manifest] = {}
    pending: list[Unit[Args]] = []
    for unit in units:
        name = f"{unit.key}.json"
        if name in present:
            saved = storage.read_json(storage.join(folder, name))
            done[unit.key] = configs.from_dict(process.manifest, saved)
        else:
            pending.append(unit)
    return done, pending


def forget_others(units: Sequence[Unit[Args]], folder: str) -> None:
    """Remove the manifests of one stage's other units: these write to the same final names."""
    wanted = {f"{unit.key}.json" for unit in units}
    stages = tuple({f"{unit.stage}-" for unit in units})
    for name in storage.list_dir(folder):
        if name.startswith(stages) and name.endswith(".json") and name not in wanted:
            storage.remove_tree(storage.join(folder, name))


def remove_other_files(folder: str, wanted: set[str], ending: str = "") -> None:
    """Remove what an interrupted run of another input or code left among a stage's outputs.

    `wanted` are URIs; files with another ending are nobody's shards and stay.
    """
    for name in storage.list_dir(folder):
        uri = storage.join(folder, name)
        if name.endswith(ending) and uri not in wanted:
            storage.remove_tree(uri)


def run_serially(
    units: Sequence[Unit[Args]],
    process: Process[Args, Manifest],
    folder: str,
    on_done: Callable[[Manifest], None] | None = None,
) -> list[Manifest]:
    """Every unit in this process, in order. Returns their manifests in the order of `units`."""
    manifests: list[Manifest] = []
    for unit in units:
        manifests.append(finish(unit, process, folder))
        if on_done:
            on_done(manifests[-1])
    return manifests
