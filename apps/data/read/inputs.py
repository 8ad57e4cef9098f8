"""The files that inputs name: paths, globs, folders at any depth, members of ZIP archives.

A folder of a data set that was downloaded from the hub, or saved by the `datasets` library, is one
of these folders: its newest snapshot is read, and what only describes it is left out.
"""

import errno
import functools
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from apps.common.errors import InputError, NotFoundError
from apps.common.files import storage
from apps.data.read import unread_files

MEMBER_MARK = "!/"
"""Between a ZIP archive and its member: `export.zip!/conversations.json`."""
_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_ZIP_DAMAGE = (
    *(zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error, struct.error, ValueError),
    RuntimeError,
)
_DESCRIPTIONS = frozenset(
    ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
)
_NO_DUMPS = (
    *(".md", ".rst", ".html", ".htm", ".yaml", ".yml", ".toml", ".py", ".ipynb", ".lock", ".log"),
    *(".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".pdf", ".wav", ".mp3", ".mp4", ".dat"),
    *(".css", ".js", ".sh", ".bin", ".safetensors", ".pt", ".pkl", ".npy", ".npz", ".h5", ".db"),
    *(".sqlite", ".xml", ".rels", ".bz2", ".xz", ".lz4", ".7z", ".rar", ".tar", ".tgz", ".tar.gz"),
    *(".tar.zst", ".zip"),  # of which one that was opened is no more
)
_NAMES_OF_NO_DUMPS = frozenset(("license", "readme", "notice", "makefile"))
_CACHES = ("cache-", "tmp")
"""How the `datasets` library names what it can make again."""


@dataclass(frozen=True, slots=True)
class Inputs:
    files: tuple[str, ...]
    skipped: tuple[str, ...]
    """in folders and archives: what by its name is no dump"""


def find(inputs: tuple[str, ...]) -> Inputs:
    """The files that inputs name, sorted within each. Raises NotFoundError."""
    files: dict[str, None] = {}
    skipped: dict[str, None] = {}
    for given in inputs:
        own, left = _expand(storage.absolute(given))
        if not own:
            raise NotFoundError(
                f"{given} names no file; expected a JSON, JSONL, CSV, TSV, Parquet, Arrow, .gz, "
                ".zst or .zip file, a folder of them, or a glob such as 'dumps/*.json'."
            )
        files.update(dict.fromkeys(own))
        skipped.update(dict.fromkeys(left))
    return Inputs(tuple(files), tuple(skipped))


def _expand(uri: str) -> tuple[list[str], list[str]]:
    """Files, and what was skipped."""
    if any(mark in uri for mark in "*?["):
        found = [uri] if storage.exists(uri) else _matches(uri)
    elif storage.is_dir(uri):
        found = [uri]
    else:
        if not storage.exists(uri):
            return [], []
        unread_files.check_kind(uri)
        members = _members(uri)
        names = [one.removeprefix(f"{uri}{MEMBER_MARK}") for one in members or ()]
        unread_files.check_members(uri, names)
        return _sorted_out([uri] if members is None else members, is_named=members is None)
    in_folder: dict[str, bool] = {}  # file -> whether a folder that was named holds it
    for one in found:
        is_folder = storage.is_dir(one)
        for file in _below(one) if is_folder else (one,):
            in_folder[file] = in_folder.get(file, False) or is_folder
    files = [file for one in in_folder for file in _opened(one)]
    own, left = _sorted_out(files, is_named=False)
    # As Spark does with a folder: what begins with a low line is about the others.
    aside = {file: None for file in own if in_folder.get(file) and _name(file).startswith("_")}
    return [file for file in own if file not in aside], [*left, *aside]


def _matches(pattern: str) -> list[str]:
    """Files, and folders that are not hidden; `**` names what is in folders itself."""
    matches = storage.glob(pattern, folders="**" not in pattern)
    return [
        one for one in matches if not (_name(one).startswith(("_", ".")) and storage.is_dir(one))
    ]


def _opened(uri: str) -> list[str]:
    """The file, or the members of an archive."""
    members = _members(uri)
    return [uri] if members is None else members


def _sorted_out(files: list[str], *, is_named: bool) -> tuple[list[str], list[str]]:
    kept = [uri for uri in files if is_named or (_may_be_dump(uri) and not _is_set_apart(uri))]
    kept_set = set(kept)
    return kept, [uri for uri in files if uri not in kept_set]


def _may_be_dump(uri: str) -> bool:
    name = _name(uri).lower()
    return not (
        name in _DESCRIPTIONS
        or name.split(".")[0] in _NAMES_OF_NO_DUMPS
        or name.endswith(_NO_DUMPS)
        or (name.startswith(_CACHES) and name.endswith(".arrow"))
    )


def _is_set_apart(uri: str) -> bool:
    """Whether a member of an archive, or a folder in there, begins with a low line."""
    _, mark, name = uri.rpartition(MEMBER_MARK)
    return bool(mark) and any(part.startswith("_") for part in name.split("/"))


def _name(uri: str) -> str:
    return uri.replace(MEMBER_MARK, "/").rsplit("/", 1)[-1]


def _below(folder: str) -> Iterator[str]:
    """The files of a folder and of its folders, in the order of their names."""
    names = [name for name in storage.list_dir(folder) if not name.startswith(".")]
    if storage.COMMIT_NAME in names:  # of `clean`: what lies beside the shards is about them
        names = [name for name in names if name.endswith(".parquet")]
    if {"snapshots", "blobs"} <= set(names):
        yield from _below(_snapshot(storage.join(folder, "snapshots"), folder))
        return
    for name in names:
        child = storage.join(folder, name)
        if storage.is_dir(child):
            yield from _below(child) if not name.startswith("_") else ()
        else:
            yield child


def _snapshot(snapshots: str, folder: str) -> str:
    """Of a downloaded data set, the revision that `main` is; else the last by name."""
    main = storage.join(folder, "refs", "main")
    names = storage.list_dir(snapshots)
    revision = storage.read_bytes(main).decode().strip() if storage.exists(main) else ""
    return storage.join(snapshots, revision if revision in names else names[-1])


def is_member(uri: str) -> bool:
    return _archive_of(uri) is not None


def _archive_of(uri: str) -> str | None:
    """The archive that a member is in: `wow!/a.zip` of `wow!/a.zip!/b.json`, None of `wow!/a.zip`.

    A folder's name may end with the mark, and a member's folder too.
    """
    at = uri.find(MEMBER_MARK)
    while at >= 0:
        if _is_file(uri[:at]):
            return uri[:at]
        at = uri.find(MEMBER_MARK, at + 1)
    return None


@functools.lru_cache(maxsize=1024)  # a bucket is asked once, not for each member
def _is_file(uri: str) -> bool:
    return storage.exists(uri) and not storage.is_dir(uri)


def _members(uri: str) -> list[str] | None:
    """The files in a ZIP archive; None when it is none.

    Raises InputError when it is damaged or locked.
    """
    with storage.open_file(uri) as handle:
        if handle.read(4) not in (_ZIP, _EMPTY_ZIP):
            return None
        try:
            infos = zipfile.ZipFile(handle).infolist()
        except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError) as error:
            raise InputError(
                f"{uri} is a damaged ZIP archive ({error}); download it again."
            ) from error
    files = [info for info in infos if not info.is_dir() and not _is_hidden(info.filename)]
    if any(info.flag_bits & 1 for info in files):
        raise InputError(f"{uri} is locked with a password; unpack it and name its folder.")
    return sorted(f"{uri}{MEMBER_MARK}{info.filename}" for info in files)


def _is_hidden(name: str) -> bool:
    """What macOS puts beside each file, too."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def sizes_and_stamps(uris: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Bytes of each file, and what changes when it does. Raises NotFoundError.

    Of a member of an archive they are those of the archive.
    """
    archives = {uri: _archive_of(uri) or uri for uri in uris}
    known = {archive: _size_and_stamp(archive) for archive in dict.fromkeys(archives.values())}
    return {uri: known[archive] for uri, archive in archives.items()}


def _size_and_stamp(uri: str) -> tuple[int, str]:
    fs, path = storage.filesystem(uri)
    try:
        info = fs.info(path)
    except FileNotFoundError as error:
        raise NotFoundError(f"{uri} does not exist; check the path.") from error
    stamp = f"{info.get('size')}-{info.get('ETag') or info.get('mtime') or info.get('updated')}"
    return int(info.get("size") or 0), stamp


def extract(uri: str, target: str) -> str | None:
    """Write a member of an archive to a file of its own; why it ends early, or None."""
    archive = _archive_of(uri) or uri
    name = uri.removeprefix(f"{archive}{MEMBER_MARK}")
    with (
        storage.open_file(archive) as handle,
        zipfile.ZipFile(handle) as opened,
        storage.atomic_file(target) as out,
    ):
        try:
            with opened.open(name) as member:
                while chunk := member.read(1 << 20):
                    out.write(chunk)
        except _ZIP_DAMAGE as error:
            return f"{type(error).__name__}: {error}"
        except OSError as error:
            if error.errno != errno.EINVAL:  # that of a place before the file's first byte
                raise
            return f"BadZipFile: {error}"
    return None
