"""What made this artifact: inputs, settings, code and versions, written beside every output."""

import functools
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Mapping

from apps.common.files import config as configs
from apps.common.files import storage
from apps.common.files.json_floats import from_json, to_json
from apps.common.files.schema import LINEAGE_NAME

_PACKAGES = ("ray", "torch", "transformers", "tokenizers", "pyarrow", "openai")


def collect(*, inputs: Mapping[str, str], config: object, **extra: object) -> dict[str, object]:
    """Lineage of an artifact.

    Args:
        inputs: name or URI of each input, with its digest
        config: the resolved settings
        extra: further facts, such as `usd=12.3` or `parents={...}`
    """
    return {
        "inputs": dict(inputs),
        "config_digest": configs.digest(config),
        "git_commit": git_commit(),
        "versions": versions(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **extra,
    }


def write(dir_uri: str, record: Mapping[str, object]) -> None:
    storage.write_json(storage.join(dir_uri, LINEAGE_NAME), to_json(record))


def read(dir_uri: str) -> dict[str, object]:
    """Raises NotFoundError when the artifact carries no lineage."""
    return read_from(storage.join(dir_uri, LINEAGE_NAME))


def read_from(uri: str) -> dict[str, object]:
    """Lineage by its artifact's folder, or by the file itself."""
    return from_json(storage.read_json(uri)) if uri.endswith(".json") else read(uri)


@functools.cache
def versions() -> dict[str, str]:
    """Python and the packages that decide what an artifact holds."""
    by_package = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            by_package[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return by_package


@functools.cache
def git_commit() -> str | None:
    """Commit of the code, `-dirty` when files differ; CRIA_GIT_COMMIT outside a checkout."""
    folder = os.path.dirname(os.path.abspath(__file__))
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("CRIA_GIT_COMMIT")
    return described.stdout.strip()
