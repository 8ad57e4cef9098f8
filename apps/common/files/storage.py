"""One way to read and write local paths, `file://`, `s3://` and `gs://`.

Writers never leave a file that looks whole and is not: `write_atomic` and `atomic_file` go through
a temporary name, `fsync` and `rename` locally, and are a single put remotely. A folder counts as
finished when it holds the commit marker, which is always written last.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import tempfile
import threading
import uuid
from collections.abc import Generator, Mapping
from typing import IO, Any, cast

import fsspec  # pyright: ignore[reportMissingTypeStubs]

from apps.common.errors import (
    CriaError,
    InputError,
    NotFoundError,
    StorageError,
    UnusablePathError,
    in_one_line,
)

COMMIT_NAME = "COMMITTED.json"
_CHUNK_BYTES = 1 << 20
_APPENDING = threading.Lock()
"""Held from the look at a file's last byte to the end of the write: half of another thread's line
is not the torn line of a dead writer."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WRONG_KIND = {
    errno.EISDIR: "it is a folder, and a file is expected",
    errno.ENOTDIR: "a part of it is a file, and a folder is expected",
    errno.EEXIST: "it, or a part of it, is a file, and a folder is expected",
}


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URI and the path inside it."""
    try:
        fs, path = cast(Any, fsspec).core.url_to_fs(_expand(uri))
    except (ValueError, ImportError) as error:
        raise InputError(
            f"{uri!r} cannot be opened ({error}); expected a local path, file://, s3:// or gs://."
        ) from error
    return fs, str(path)


def is_local(uri: str) -> bool:
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> str:
    """Absolute path of a local URI."""
    if not is_local(uri):
        raise InputError(f"{uri!r} is remote; expected a local path.")
    return os.path.abspath(_expand(uri).removeprefix("file://"))


def absolute(uri: str) -> str:
    """A URI that means the same from every working directory."""
    return local_path(uri) if is_local(uri) else uri.rstrip("/")


def join(uri: str, *parts: str) -> str:
    """Append path parts to a URI."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def exists(uri: str) -> bool:
    fs, path = filesystem(uri)
    with _sentences(uri):
        fs.invalidate_cache()
        return bool(fs.exists(path))


def is_dir(uri: str) -> bool:
    fs, path = filesystem(uri)
    with _sentences(uri):
        fs.invalidate_cache()
        return bool(fs.isdir(path))


def list_dir(uri: str) -> list[str]:
    """Sorted names (not URIs) directly under a folder; empty when it does not exist."""
    fs, path = filesystem(uri)
    with _sentences(uri):
        fs.invalidate_cache()
        if not fs.isdir(path):
            return []
        paths = cast(list[str], fs.ls(path, detail=False))
    names = {p.rstrip("/").rsplit("/", 1)[-1] for p in paths if p.rstrip("/") != path.rstrip("/")}
    return sorted(names)


def glob(pattern: str, *, folders: bool = False) -> list[str]:
    """Sorted URIs of the files that a pattern names, and of the folders too when these are wanted;
    empty when the folder does not exist."""
    fs, path = filesystem(pattern)
    scheme = "" if is_local(pattern) else pattern.split("://", 1)[0] + "://"
    with _sentences(pattern):
        fs.invalidate_cache()
        try:
            matches = cast(list[str], fs.glob(path))
        except FileNotFoundError:
            return []
        is_wanted = fs.exists if folders else fs.isfile
        return [scheme + match for match in sorted(matches) if is_wanted(match)]


def size_bytes(uri: str) -> int:
    fs, path = filesystem(uri)
    with _sentences(uri):
        return int(fs.size(path))


def modified_s(uri: str) -> float:
    """Unix time of the last change."""
    fs, path = filesystem(uri)
    with _sentences(uri):
        return float(fs.modified(path).timestamp())


def version(uri: str) -> str:
    """Another one whenever a file is written again, by whomever; says nothing else."""
    fs, path = filesystem(uri)
    with _sentences(uri):
        if is_local(uri):  # a changed mode or link, or a mounted bucket's own numbers, say nothing
            found = os.stat(local_path(uri))
            return f"{found.st_size}-{found.st_mtime_ns}"
        fs.invalidate_cache()  # a listing tells a file's version in other words, and an old one
        return str(fs.checksum(path))


@contextlib.contextmanager
def open_file(uri: str, mode: str = "rb", *, exact: bool = False) -> Generator[IO[Any]]:
    """Open for reading, or for plain (non-atomic) writing; see `atomic_file` for outputs.

    `exact`: of a bucket, fetch what is read and nothing around it.
    """
    fs, path = filesystem(uri)
    with _sentences(uri):
        if "r" not in mode:
            fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        options = {"cache_type": "none"} if exact else {}
        handle = cast(IO[Any], fs.open(path, mode, **options))
    with handle, _sentences(uri):
        yield handle


def read_bytes(uri: str) -> bytes:
    with open_file(uri) as handle:
        return cast(bytes, handle.read())


def read_range(uri: str, start: int, end: int) -> bytes:
    """The bytes of a range, fewer where the file ends; of a bucket nothing else is fetched."""
    if start == end:
        return b""
    fs, path = filesystem(uri)
    with _sentences(uri):
        return cast(bytes, fs.cat_file(path, start=start, end=end))


def read_json(uri: str) -> Any:
    return json.loads(read_bytes(uri))


def claim(uri: str, flag: str = "--out") -> None:
    """Make the local folder that a command will write to; an InputError where it cannot.

    A bucket is not asked: what it answers today may pass.
    """
    if not is_local(uri):
        return
    try:
        os.makedirs(local_path(uri), exist_ok=True)
        with tempfile.TemporaryFile(dir=local_path(uri)) as probe:
            probe.write(b"\0")  # which a full disk has no room for
    except OSError as error:
        raise InputError(
            f"{flag} {uri} cannot be written ({error.strerror}); choose another folder, or mend "
            "this one."
        ) from error


@contextlib.contextmanager
def atomic_file(uri: str, new_mode: int = 0o666) -> Generator[IO[bytes]]:
    """A binary file that appears under its name only when the block ends without an error.

    On a disk it keeps the permissions of the file it replaces; a new one has those of `new_mode`
    that the umask leaves.
    """
    if not is_local(uri):
        fs, path = filesystem(uri)
        with _sentences(uri):
            handle = fs.open(path, "wb")
            try:
                yield handle
            except BaseException:
                discard = getattr(handle, "discard", None)
                if discard is not None:
                    discard()
                handle.closed = True  # or its finalizer would upload the half-written buffer
                raise
            handle.close()
        return
    path = local_path(uri)
    with _sentences(uri):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            old_mode = stat.S_IMODE(os.stat(path).st_mode) if os.path.exists(path) else None
            first_mode = new_mode if old_mode is None else old_mode
            with open(
                temporary, "wb", opener=lambda name, flags: os.open(name, flags, first_mode)
            ) as handle:
                if old_mode is not None:
                    os.fchmod(handle.fileno(), old_mode)
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        _fsync_dir(os.path.dirname(path))


def remove_unfinished(folder: str) -> None:
    """What `atomic_file` had begun in a folder when its process was killed."""
    for name in list_dir(folder):
        if _UNFINISHED.search(name) is not None:
            remove_tree(join(folder, name))


_UNFINISHED = re.compile(r"\.[0-9a-f]{8}\.tmp\Z")
"""How `atomic_file` names it."""


def write_atomic(uri: str, data: bytes, new_mode: int = 0o666) -> None:
    with atomic_file(uri, new_mode) as handle:
        handle.write(data)


def write_json(uri: str, value: object) -> None:
    """Write indented JSON with sorted keys: equal values give equal bytes."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomic(uri, text.encode())


def read_all(folder: str) -> list[bytes]:
    """The files directly in a folder of a bucket, by name; fetched side by side."""
    uris = [join(folder, name) for name in list_dir(folder)]
    if not uris:
        return []
    fs, _ = filesystem(folder)
    paths = [filesystem(uri)[1] for uri in uris]
    with _sentences(folder):
        found = cast(dict[str, bytes], fs.cat(paths))
    return [found[path] for path in paths]


def append_lines(path: str, lines: bytes) -> None:
    """Append whole lines and have them on the disk, after the torn last line of a dead writer.

    On a disk only; parts.py does it in a bucket too.
    """
    target = local_path(path)
    with _sentences(path):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "ab+") as handle:
            with _APPENDING:
                if handle.seek(0, os.SEEK_END) > 0:
                    handle.seek(-1, os.SEEK_END)
                    if handle.read(1) != b"\n":
                        lines = b"\n" + lines
                handle.write(lines)
                handle.flush()
            os.fsync(handle.fileno())


def remove_tree(uri: str) -> None:
    """Delete a file or folder; nothing happens when it does not exist.

    Another process may remove it too, or still write there.
    """
    fs, path = filesystem(uri)
    with _sentences(uri):
        fs.invalidate_cache()
        for _ in range(_REMOVALS):
            if not fs.exists(path):
                return
            try:
                fs.rm(path, recursive=True)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise


_REMOVALS = 10


def commit(dir_uri: str, payload: Mapping[str, object]) -> None:
    """Mark a folder as finished. Call it after everything else has been written."""
    write_json(join(dir_uri, COMMIT_NAME), payload)


def read_commit(dir_uri: str) -> dict[str, object] | None:
    """The commit payload of a folder, or None when it was never finished."""
    try:
        return cast(dict[str, object], read_json(join(dir_uri, COMMIT_NAME)))
    except (NotFoundError, ValueError):
        return None


def digest_file(uri: str) -> str:
    """blake2b-128 hex digest of a file's bytes."""
    hasher = hashlib.blake2b(digest_size=16)
    with open_file(uri) as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


def _expand(uri: str) -> str:
    return os.path.expanduser(uri) if is_local(uri) else uri


def _fsync_dir(path: str) -> None:
    descriptor = os.open(path or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _sentences(uri: str) -> Generator[None]:
    """Turn the storage stacks' errors into our sentences."""
    try:
        yield
    except CriaError:
        raise
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{uri} does not exist; check the path (and the bucket's name)."
        ) from error
    except PermissionError as error:
        if is_local(uri):
            raise UnusablePathError(
                f"{uri} may not be opened by this user; give another path, or change who may read "
                "and write it."
            ) from error
        raise StorageError(
            f"Access to {uri} was denied ({in_one_line(error)}); check its permissions or "
            "credentials."
        ) from error
    except OSError as error:
        if is_local(uri) and error.errno in _WRONG_KIND:
            raise UnusablePathError(
                f"{uri} cannot be used: {_WRONG_KIND[error.errno]}; give another path."
            ) from error
        if error.errno in _NO_SPACE:
            raise StorageError(
                f"No space is left for {uri} ({error.strerror}); free some and run again."
            ) from error
        raise StorageError(f"{uri} failed: {in_one_line(error)}.") from error
    except Exception as error:
        if type(error).__module__.startswith(("botocore", "aiobotocore", "google", "gcsfs")):
            raise StorageError(
                f"{uri} failed: {in_one_line(error)}; check the bucket and its credentials."
            ) from error
        raise
