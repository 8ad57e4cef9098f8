"""A finished model folder goes to its place: there it is whole, or is not taken for a model."""

import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping

from apps.common.errors import InputError, NotFoundError
from apps.common.files import config as configs
from apps.common.files import storage
from apps.common.files.model_settings import CONFIG
from apps.common.files.schema import LINEAGE_NAME
from apps.train.config import BaseConfig

PARTIAL = ".partial"
"""how the name of a folder ends in which a model is made"""
_WEIGHTS = (".safetensors", ".safetensors.index.json")
_ALL_WEIGHTS = (*_WEIGHTS, ".gguf")
_MARKS = (CONFIG, "adapter_config.json")
"""without which no reader takes a folder for a model: of an earlier one they go first, of the new
one they come last"""
_DEAD_S = 24 * 3600
"""after which what another machine makes and does not change any more counts as left behind"""


@contextlib.contextmanager
def workspace(out: str) -> Iterator[str]:
    """An empty folder for the length of the block, on the disk of a local `out`.

    On this machine one command at a time works on `out`, so the next one removes what a killed one
    has left. Another machine that shares the disk has a folder of another name.
    """
    if not storage.is_local(out):
        with tempfile.TemporaryDirectory() as folder:
            yield folder
        return
    parent, name = os.path.split(_beside(storage.local_path(out), "."))
    with _fresh(parent, name) as folder:
        yield folder


@contextlib.contextmanager
def base_workspace(out: str) -> Iterator[str]:
    """The same inside of a local `out` that is there."""
    with _fresh(storage.local_path(out), ".base.") as folder:
        yield folder


@contextlib.contextmanager
def _fresh(parent: str, prefix: str) -> Iterator[str]:
    """`.model.HOST.partial` in `parent`, for the prefix `.model.`"""
    folder = os.path.join(parent, f"{prefix}{socket.gethostname()}{PARTIAL}")
    os.makedirs(parent, exist_ok=True)
    for name in os.listdir(parent):
        left = os.path.join(parent, name)
        if name.startswith(prefix) and name.endswith(PARTIAL) and _is_dead(left, folder):
            shutil.rmtree(left, ignore_errors=True)
    os.makedirs(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_dead(left: str, own: str) -> bool:
    """Whether nobody works in that folder any more."""
    if left == own:
        return True
    with contextlib.suppress(OSError):
        files = [os.path.join(left, name) for name in os.listdir(left)]
        newest_s = max(os.path.getmtime(path) for path in (left, *files))
        return time.time() - newest_s > _DEAD_S
    return False


def _beside(path: str, ending: str) -> str:
    """`.model.old` beside `model`, for the ending .old; inside of a disk that is mounted there."""
    place = os.path.realpath(path)
    parent, name = os.path.split(place)
    return os.path.join(place if os.path.ismount(place) else parent, f".{name}{ending}")


def publish(folder: str, out: str) -> str:
    """Put the folder where `out` says, in place of an earlier export; a local path of it."""
    place = os.path.realpath(storage.local_path(out)) if storage.is_local(out) else ""
    if place and not os.path.ismount(place):  # of a link to a mounted disk it is never true
        _open_to_readers(folder)
        _replace(folder, place)
        return storage.local_path(out)
    marks = _MARKS if LINEAGE_NAME in storage.list_dir(out) else ()  # others' stay until the end
    for name in (*marks, *_left_weights(folder, out, _ALL_WEIGHTS)):
        storage.remove_tree(storage.join(out, name))
    _write_over(folder, out)
    return folder


def _write_over(folder: str, out: str) -> None:
    """File by file, the marks when every other one is there as it was written.

    No lock of this machine reaches an export that another one writes to the same place. Of two at
    most one goes on. Any other raises InputError, and leaves what is there without its marks.
    """
    versions: dict[str, str] = {}
    for name in _marks_last(folder):
        if name in _MARKS:
            _check_unchanged(out, versions)
            for left in _left_weights(folder, out, _ALL_WEIGHTS):
                storage.remove_tree(storage.join(out, left))
        with (
            open(os.path.join(folder, name), "rb") as source,
            storage.atomic_file(storage.join(out, name)) as target,
        ):
            shutil.copyfileobj(source, target, 8 << 20)
        versions[name] = _version(out, name)
        _check_unchanged(
            out, versions if name in _MARKS else {LINEAGE_NAME: versions[LINEAGE_NAME]}
        )


def _check_unchanged(out: str, versions: Mapping[str, str]) -> None:
    if all(_version(out, name) == version for name, version in versions.items()):
        return
    for mark in _MARKS:
        storage.remove_tree(storage.join(out, mark))
    raise InputError(
        f"Another export has written to {out} meanwhile, so that it holds no whole model; run one "
        "at a time for each --out, and this one again."
    )


def _version(out: str, name: str) -> str:
    """Empty where somebody has deleted the file."""
    try:
        return storage.version(storage.join(out, name))
    except NotFoundError:
        return ""


def publish_base(folder: str, config: BaseConfig) -> None:
    """Move the files into --out, where others may lie; no config.json is there until the end."""
    out = storage.local_path(config.out)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(out, CONFIG))  # of an earlier output
    for name in _left_weights(folder, out, _WEIGHTS):  # a GGUF file there may be the source
        os.unlink(os.path.join(out, name))
    configs.write_resolved(config, out)
    _open_to_readers(folder)
    for name in _marks_last(folder):
        os.replace(os.path.join(folder, name), os.path.join(out, name))


def _open_to_readers(folder: str) -> None:
    os.chmod(folder, 0o755)
    for name in os.listdir(folder):
        os.chmod(os.path.join(folder, name), 0o644)


def _marks_last(folder: str) -> list[str]:
    """The lineage comes first: it says of a cut export that it was one."""
    return sorted(os.listdir(folder), key=lambda name: (name in _MARKS, name != LINEAGE_NAME))


def _left_weights(folder: str, out: str, endings: tuple[str, ...]) -> list[str]:
    """Weights of an earlier output under other names, which a reader would take for the model's."""
    there = storage.list_dir(out)
    if LINEAGE_NAME not in there:
        return []
    return [name for name in set(there) - set(os.listdir(folder)) if name.endswith(endings)]


def _replace(folder: str, target: str) -> None:
    """By two renames, so that a kill leaves one of the folders or none, never a part of one."""
    old = _beside(target, ".old")
    shutil.rmtree(old, ignore_errors=True)
    if os.path.exists(target):
        os.rename(target, old)
    os.rename(folder, target)
    shutil.rmtree(old, ignore_errors=True)
