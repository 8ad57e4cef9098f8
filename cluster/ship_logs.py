"""Puts this machine's Ray logs into a bucket, because they go when the machine goes.

    python -m cluster.ship_logs s3://bucket/logs/run

Writes URI/<host>-<time>.tar.gz: what jobs, tasks and Ray itself printed. It runs at
the end of a job (cluster/submit_job.py) and when the cloud takes the machine (spot_watch.py).
"""

import io
import os
import socket
import sys
import tarfile
import time
from pathlib import Path

from apps.common.files import storage

MAX_FILE_BYTES = 32 << 20
"""of a longer log its end: two minutes' notice must be enough for all of them"""


def session_logs() -> Path:
    """Ray's folder is CRIA_RAY_TEMP where that is set."""
    return Path(os.environ.get("CRIA_RAY_TEMP") or "/tmp/ray") / "session_latest" / "logs"


def pack(folder: Path) -> bytes:
    """The folder's files as a tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path in sorted(folder.rglob("*")):
            if not path.is_file():
                continue  # Ray keeps sockets and pipes there as well
            content = _end_of(path)
            entry = tarfile.TarInfo(str(path.relative_to(folder)))
            entry.size, entry.mtime = len(content), int(path.stat().st_mtime)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _end_of(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MAX_FILE_BYTES))
        return file.read(MAX_FILE_BYTES)


def ship(uri: str) -> None:
    """Nothing without a URI; a bucket that cannot be written is told and ends nothing."""
    if not uri:
        return
    name = f"{socket.gethostname()}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.tar.gz"
    try:
        storage.write_atomic(storage.join(uri, name), pack(session_logs()))
    except Exception as error:  # every storage has errors of its own, and the job has its own end
        print(f"ship_logs: the logs could not be put to {uri}: {error}", file=sys.stderr)
        return
    print(f"ship_logs: logs are in {storage.join(uri, name)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m cluster.ship_logs URI")
    ship(sys.argv[1])
