"""Checkpoints that are either whole or not there.

    OUT/checkpoints/step-00000120/   shards of torch.distributed.checkpoint, one file a rank
    OUT/checkpoints/step-00000120/COMMITTED.json   last: step, tokens, size and digest of each file

Shards go straight to the run's storage through fsspec, in a background thread while training goes
on. Only a folder with the marker counts. A reader takes the newest one whose files are what the
marker says, and tells what it skipped and why. `.metadata` is a pickle: resume only runs you trust.
"""

import contextlib
import errno
import io
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, NotRequired, TypedDict, cast

import torch
import torch.distributed as dist
import xxhash
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint._fsspec_filesystem import FileSystem, FsspecReader, FsspecWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from apps.common.errors import (
    CorruptError,
    CriaError,
    NotFoundError,
    StorageError,
    first_line,
)
from apps.common.files import storage
from apps.common.files.schema import CHECKPOINTS_DIR, checkpoint_name, checkpoint_step
from apps.train.checkpoint.fence import Fence
from apps.train.config import CheckpointConfig
from apps.train.parallel.strategy import State

_CHUNK_BYTES = 8 << 20
_FULL = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))

warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)  # one rank asks it


class FileEntry(TypedDict):
    """One file of a checkpoint."""

    bytes: int
    xxh3: str


class RunMark(TypedDict, total=False):
    """What every marker of a run says."""

    identity: dict[str, object]
    """data, base and the settings that change what is computed"""
    config_digest: str
    base_weights: str
    """digest of the base as it was at the start, for who mixes its weights in"""
    validated_on: str
    """the pack and how many of its rows: losses over others do not compare"""


class Commit(RunMark):
    """A marker: of the run, of its progress, of the files."""

    step: int
    updates: int
    tokens: int
    supervised_tokens: int
    seconds: float
    recent_losses: list[float]
    best_val_loss: float | None
    best_step: int
    num_worse: int
    world_size: int
    files: NotRequired[dict[str, FileEntry]]
    """added when all of them are written"""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A committed checkpoint."""

    uri: str
    commit: Commit

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.commit["step"]


Candidate = tuple[str, Checkpoint, str | None]
"""Name, checkpoint, and why it is none at first sight."""


def folder(run_uri: str) -> str:
    return storage.join(run_uri, CHECKPOINTS_DIR)


def committed(run_uri: str) -> list[Checkpoint]:
    """Committed checkpoints, newest first, without looking at their shards."""
    whole = []
    for name in storage.list_dir(folder(run_uri)):
        if checkpoint_step(name) is None:
            continue
        uri = storage.join(folder(run_uri), name)
        commit = cast(Commit | None, storage.read_commit(uri))
        if commit is not None and "step" in commit:
            whole.append(Checkpoint(uri, commit))
    return sorted(whole, key=lambda c: c.step, reverse=True)


def committed_step(run_uri: str) -> int:
    """Step of the newest committed checkpoint; 0 without one."""
    whole = committed(run_uri)
    return whole[0].step if whole else 0


def saved_s(run_uri: str) -> float | None:
    """Unix time at which the newest committed checkpoint was; None without one."""
    whole = committed(run_uri)
    return storage.modified_s(storage.join(whole[0].uri, storage.COMMIT_NAME)) if whole else None


def newest(
    run_uri: str, verify: str, tell: Callable[[str], None], step: int | None = None
) -> Checkpoint | None:
    """The newest whole checkpoint (or that of `step`)."""
    return first_whole(
        candidates(run_uri, step), lambda one: damage(one.uri, one.commit, verify), tell
    )


def first_whole(
    listed: Iterable[Candidate],
    damage_of: Callable[[Checkpoint], str | None],
    tell: Callable[[str], None],
) -> Checkpoint | None:
    """The first without a fault; each one skipped is told in a sentence."""
    for name, candidate, fault in listed:
        fault = fault or damage_of(candidate)
        if fault is None:
            return candidate
        tell(f"Skipped checkpoint {name}: {fault}")
    return None


def candidates(run_uri: str, step: int | None = None) -> Iterator[Candidate]:
    """Those of a run (of `step` only), newest first."""
    names = [n for n in storage.list_dir(folder(run_uri)) if checkpoint_step(n) is not None]
    for name in sorted(names, reverse=True):
        if step is not None and checkpoint_step(name) != step:
            continue
        uri = storage.join(folder(run_uri), name)
        commit = cast(Commit, storage.read_commit(uri) or {})
        fault = None if "files" in commit else "it was never finished (no commit marker)."
        yield name, Checkpoint(uri, commit), fault


def damage(uri: str, commit: Commit, verify: str, share: slice = slice(None)) -> str | None:
    """What is wrong with a committed checkpoint's files (or a share of them), or None."""
    present = set(storage.list_dir(uri))
    for name, expected in sorted(commit.get("files", {}).items())[share]:
        fault = f"its file {name} is missing."
        if name in present:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile by a run that goes on
                fault = _damage_of_file(storage.join(uri, name), name, expected, verify)
        if fault is not None:
            return fault
    return None


def _damage_of_file(path: str, name: str, expected: FileEntry, verify: str) -> str | None:
    size = storage.size_bytes(path)
    if size != expected["bytes"]:
        return f"its file {name} has {size:,} bytes where {expected['bytes']:,} were written."
    if verify == "digest" and _digest(path) != expected["xxh3"]:
        return f"the contents of its file {name} are not what was written."
    return None


@contextlib.contextmanager
def reading(checkpoint: Checkpoint) -> Iterator[None]:
    """Tell of a checkpoint that is deleted in the block: its run may go on meanwhile."""
    try:
        yield
    except Exception as error:
        if storage.read_commit(checkpoint.uri) is None:
            raise NotFoundError(
                f"{checkpoint.uri} was deleted while it was read: its run goes on, and keeps its "
                "newest checkpoints only. Run the same command again for a newer one."
            ) from error
        raise


def _digest(path: str) -> str:
    hasher = xxhash.xxh3_128()
    with storage.open_file(path) as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


class Checkpoints:
    """Writes the checkpoints of one run; every rank holds one and calls it in the same order."""

    def __init__(
        self,
        run_uri: str,
        config: CheckpointConfig,
        device_type: str,
        timeout_s: float = 600.0,
        on_commit: Callable[[], None] = lambda: None,
        fence: Fence | None = None,
    ) -> None:
        """`timeout_s` is how long a rank's write may lag behind the others'; `on_commit` is called
        on rank 0 once a checkpoint is whole, in the thread that wrote it. Without the `fence` no
        other command writes to the run."""
        self._on_commit = on_commit
        self._fence = fence or Fence(run_uri)
        self._run_uri = run_uri
        self._config = config
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
        assert isinstance(group, dist.ProcessGroup)  # a number only for ranks outside it
        self._group = group
        on_gpu = device_type == "cuda"
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=on_gpu,
                use_shared_memory=False,
                use_async_staging=False,
                use_non_blocking_copy=on_gpu,
            )
        )
        self._writing: threading.Thread | None = None
        self._error: BaseException | None = None
        self._uncleaned: str | None = None
        self.flush_s = 0.0
        """seconds the last background write took"""

    @property
    def is_writing(self) -> bool:
        return self._writing is not None and self._writing.is_alive()

    @property
    def has_failed(self) -> bool:
        """Did the last write fail? `wait` and `save` raise with what."""
        return self._error is not None

    def save(self, state: State, commit: Commit) -> float:
        """Copy the state and write it in the background; returns the seconds of the stall."""
        started_s = time.monotonic()
        self.wait()
        staged = self._stager.stage(state)
        self._writing = threading.Thread(
            target=self._write, args=(staged, commit), name="checkpoint", daemon=True
        )
        self._writing.start()
        return time.monotonic() - started_s

    def wait(self) -> None:
        """Return when nothing is being written; raises what the last write failed with."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def uncleaned(self) -> str | None:
        """Why the last cleaning left checkpoints that are not kept, once; the next tries again."""
        sentence = self._uncleaned
        if sentence is not None:  # the thread that said it has nothing more to say
            self._uncleaned = None
        return sentence

    def close(self) -> None:
        self.wait()
        self._stager.close()

    def _write(self, staged: State, commit: Commit) -> None:
        started_s = time.monotonic()
        try:
            self._write_and_commit(staged, commit)
        except BaseException as error:
            self._error = _as_sentence(error, self._run_uri)
        self.flush_s = time.monotonic() - started_s

    def _write_and_commit(self, staged: State, commit: Commit) -> None:
        uri = storage.join(folder(self._run_uri), checkpoint_name(commit["step"]))
        rank = dist.get_rank(self._group)
        self._fence.check(self._group)
        if rank == 0:
            storage.remove_tree(uri)  # what an attempt that died left under the same name
        dist.barrier(self._group)
        writer = _Writer(uri)
        state_dict_saver.save(
            staged,
            storage_writer=writer,
            process_group=self._group,
            no_dist=_is_alone(self._group),
        )
        gathered: list[dict[str, FileEntry]] | None = (
            [{} for _ in range(dist.get_world_size(self._group))] if rank == 0 else None
        )
        dist.gather_object(writer.written, gathered, dst=0, group=self._group)
        if gathered is not None:
            files = {name: entry for part in gathered for name, entry in part.items()}
            storage.commit(uri, {**commit, "files": files})
            self._on_commit()
            self._clean()

    def _clean(self) -> None:
        """Drop what is not kept; the new checkpoint is whole even where that fails."""
        try:
            collect_garbage(self._run_uri, self._config)
        except Exception as error:
            self._uncleaned = first_line(error)


def load(checkpoint: Checkpoint, state: State, *, alone: bool = False) -> None:
    """Fill the tensors of `state` in place; any number of ranks reads any checkpoint.

    `alone` reads in this process without a process group.
    """
    try:
        reader = FsspecReader(_fsspec_uri(checkpoint.uri))
        state_dict_loader.load(state, storage_reader=reader, no_dist=alone or _is_alone())
    except CheckpointException as error:
        raise CorruptError(
            f"Checkpoint {checkpoint.uri} does not fit this model ({first_line(error)}); was the "
            "run made with another base model or adapter?"
        ) from error


def _is_alone(group: dist.ProcessGroup | None = None) -> bool:
    """Is there one rank only? Then nothing is exchanged.

    A plan that gloo's own thread copies brings that thread a team of OpenMP's. OpenMP then counts
    more threads than CPUs and lets no thread of the process spin at a barrier any more: they sleep
    four times as often (benchmarks/LOG.md).
    """
    return dist.is_initialized() and dist.get_world_size(group) == 1


def tensor_shapes(checkpoint: Checkpoint, prefix: str) -> dict[str, torch.Size]:
    """Shapes of the tensors whose names begin with `prefix`, which is cut off."""
    metadata = FsspecReader(_fsspec_uri(checkpoint.uri)).read_metadata()
    return {
        name.removeprefix(prefix): entry.size
        for name, entry in metadata.state_dict_metadata.items()
        if name.startswith(prefix) and isinstance(entry, TensorStorageMetadata)
    }


def run_of(checkpoint: Checkpoint) -> str:
    """URI of the run that a checkpoint belongs to."""
    return checkpoint.uri.rsplit("/", 2)[0]


def collect_garbage(run_uri: str, config: CheckpointConfig) -> list[str]:
    """Delete checkpoints outside the retention and unfinished ones older than the newest.

    One that cannot be deleted saves none of the others; a StorageError tells of the first.
    """
    whole = committed(run_uri)
    kept = {c.uri for c in whole[: config.keep_last]}
    if config.keep_best and whole:
        kept |= {c.uri for c in whole if c.step == whole[0].commit.get("best_step")}
    if config.keep_every_steps:
        kept |= {c.uri for c in whole if c.step % config.keep_every_steps == 0}
    removed, errors = list[str](), dict[str, Exception]()
    for name in storage.list_dir(folder(run_uri)):
        uri, step = storage.join(folder(run_uri), name), checkpoint_step(name)
        if step is not None and uri not in kept and whole and step <= whole[0].step:
            try:
                storage.remove_tree(uri)
                removed.append(name)
            except Exception as error:  # fsspec's file systems raise what they like
                errors[name] = error
    if errors:
        name, error = next(iter(errors.items()))
        raise StorageError(
            f"Old checkpoints of {run_uri} could not be deleted, {len(errors)} in all, first "
            f"{name} ({first_line(error)}); the next checkpoint tries again."
        ) from error
    return removed


def drop_after(run_uri: str, step: int) -> None:
    """Delete checkpoints of later steps: they are damaged or unfinished, or they would be newer
    than the run that goes on from `step`."""
    for name in storage.list_dir(folder(run_uri)):
        if (checkpoint_step(name) or 0) > step:
            storage.remove_tree(storage.join(folder(run_uri), name))


class _HashingFileSystem(FileSystem):
    """Notes size and digest of every file while it is written."""

    def __init__(self, written: dict[str, FileEntry]) -> None:
        super().__init__()
        self._written = written

    @contextlib.contextmanager
    def create_stream(
        self, path: str | os.PathLike[str], mode: str
    ) -> Iterator["io.IOBase | _HashingStream"]:
        with super().create_stream(path, mode) as stream:
            if "w" not in mode:
                yield stream
                return
            hashing = _HashingStream(stream)
            try:
                yield hashing
            except RuntimeError as error:  # torch's archive writer hides what the disk said
                raise hashing.error or error from error
            name = str(path).rstrip("/").rsplit("/", 1)[-1].removesuffix(".tmp")
            self._written[name] = {"bytes": hashing.num_bytes, "xxh3": hashing.hasher.hexdigest()}


class _HashingStream:
    def __init__(self, raw: io.IOBase) -> None:
        self._raw = raw
        self.hasher = xxhash.xxh3_128()
        self.num_bytes = 0
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        self.hasher.update(data)
        self.num_bytes += memoryview(data).nbytes
        try:
            return cast(IO[bytes], self._raw).write(data)
        except OSError as error:
            self.error = error
            raise

    def tell(self) -> int:
        return self.num_bytes

    def close(self) -> None:
        """The owner of the raw stream closes it."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._raw, name)


class _Writer(FsspecWriter):
    def __init__(self, uri: str) -> None:
        super().__init__(_fsspec_uri(uri), sync_files=storage.is_local(uri))
        self.written: dict[str, FileEntry] = {}
        self.fs = _HashingFileSystem(self.written)
        self.path = self.fs.init_path(_fsspec_uri(uri))


def _fsspec_uri(uri: str) -> str:
    return f"file://{storage.local_path(uri)}" if storage.is_local(uri) else uri


def _as_sentence(error: BaseException, run_uri: str) -> BaseException:
    if isinstance(error, (CriaError, RuntimeError)):
        return error  # a RuntimeError is a collective's: a rank is gone, not the storage
    if isinstance(error, CheckpointException):
        causes = " ".join(str(f[0]) for f in error.failures.values())
        is_full = any(text in causes for text in _FULL)
        hint = "free some space" if is_full else "check the storage"
        return StorageError(
            f"A checkpoint could not be written to {run_uri} ({causes[:200]}); {hint} and run the "
            "same command again."
        )
    return StorageError(f"A checkpoint could not be written to {run_uri}: {first_line(error)}.")
