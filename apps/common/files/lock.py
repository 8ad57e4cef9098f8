"""One command at a time writes to a folder: two that are started at once would undo each other."""

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Generator

from apps.common.errors import InputError
from apps.common.files import storage


@contextlib.contextmanager
def alone_in(uri: str, otherwise: str = "choose another --out") -> Generator[None]:
    """Nobody else on this machine is in the block for this place, which need not exist.

    Raises InputError at once where somebody is. The lock ends with its process, however that ends;
    it lies in the folder for temporary files, so that a command that is refused leaves no trace.
    """
    place = os.path.realpath(storage.local_path(uri)) if storage.is_local(uri) else uri.rstrip("/")
    name = hashlib.sha256(place.encode()).hexdigest()[:32]
    folder = os.path.join(tempfile.gettempdir(), f"cria-locks-{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with open(os.path.join(folder, name), "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"Another command is at work on {uri}; wait for it, stop it, or {otherwise}."
            ) from None
        yield
