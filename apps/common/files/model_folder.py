"""A model's files on this machine: local folders as they are, buckets and hub ids fetched once."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Generator
from pathlib import Path

from apps.common.errors import NotFoundError, in_one_line
from apps.common.files import storage

_TEXT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "chat_template.jinja",
)
LICENCES = ("LICENSE", "LICENCE", "NOTICE", "COPYING")
"""what a model's terms are called; they hold for what is made of it"""
_MODEL_FILES = (
    "*.json",
    "*.safetensors",
    "*.model",
    "*.jinja",
    "*.txt",
    *(f"{name}*" for name in LICENCES),
)
"""Never pickles: reading one can run code. The terms go with what is made of the model."""
_NOT_THE_MODEL = ("*/*", "consolidated*.safetensors")
"""Other forms of the same weights that some hub models have beside those of transformers."""
_VERSIONS = ".versions.json"


def model_folder(path: str) -> str:
    """A local folder with all files of the model at `path`."""
    return _local(path, None)


def text_folder(path: str) -> str:
    """A local folder with the tokenizer, template and settings of the model at `path`."""
    return _local(path, _TEXT_FILES)


def _local(path: str, names: tuple[str, ...] | None) -> str:
    if "://" in path and not storage.is_local(path):
        return _fetch(path, names)
    folder = storage.local_path(path)
    if os.path.isdir(folder):
        return folder
    if path.count("/") == 1 and not path.startswith((".", "/", "~")):
        return _from_hub(path, names)
    raise NotFoundError(
        f"No model folder {path!r}; expected a local folder, s3://, gs:// or a hub id ORG/NAME."
    )


def _fetch(uri: str, names: tuple[str, ...] | None) -> str:
    """Make the cache what lies in a bucket; a file that is there in the same version is kept."""
    present = storage.list_dir(uri)
    if "config.json" not in present:
        raise NotFoundError(f"{uri} holds no config.json; expected a Hugging Face model folder.")
    folder = cache_root() / "models" / hashlib.sha256(uri.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock"):
        kept = _versions(folder)
        for name in present:
            if names is not None and name not in names:
                continue
            source, target = storage.join(uri, name), folder / name
            version = storage.version(source)
            if (target.exists() and kept.get(name) == version) or storage.is_dir(source):
                continue
            with storage.open_file(source) as reader, storage.atomic_file(str(target)) as writer:
                while chunk := reader.read(8 << 20):
                    writer.write(chunk)
            kept[name] = version
            storage.write_json(str(folder / _VERSIONS), kept)
        for name in kept.keys() - set(present):  # or weights in one file would hide later ones
            (folder / name).unlink(missing_ok=True)
    return str(folder)


def _versions(folder: Path) -> dict[str, str]:
    """Versions of the files that were downloaded; weights trained anew have the same size."""
    path = folder / _VERSIONS
    return json.loads(path.read_text()) if path.exists() else {}


def _from_hub(path: str, names: tuple[str, ...] | None) -> str:
    import httpx
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return snapshot_download(
            path,
            allow_patterns=list(names or _MODEL_FILES),
            ignore_patterns=list(_NOT_THE_MODEL),
        )
    except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError, RuntimeError) as error:
        raise NotFoundError(
            f"{path!r} is neither a folder nor a model that the hub gave "
            f"({in_one_line(error, 200)}); check its name, the network, `hf auth login`."
        ) from error


def cache_root() -> Path:
    """Where what was downloaded is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "cria"


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    """Replicas on one machine fetch one after the other."""
    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
