"""A PostgreSQL of the tests' own, where it is installed."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from apps.common.command.runtime import free_port


@contextlib.contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """URL of its database; skips the test where it cannot run."""
    programs = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None)
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        if not shutil.which("setpriv"):
            pytest.skip("setpriv is not installed, and PostgreSQL refuses to run as root")
        for place in (folder, *folder.parents):
            with contextlib.suppress(PermissionError):
                if place.is_relative_to("/tmp/") and place != Path("/tmp"):
                    place.chmod(place.stat().st_mode | 0o011)
        shutil.chown(folder, "nobody")
        drop = ["setpriv", "--reuid=nobody", "--clear-groups"]
    else:
        drop = []
    run = {"cwd": "/", "env": {**os.environ, "LC_ALL": "C"}}
    options = ["-U", "cria", "-A", "trust", "-E", "UTF8"]
    initdb = [str(programs / "initdb"), "-D", str(folder / "d"), *options]
    subprocess.run([*drop, *initdb], check=True, capture_output=True, **run)
    port = free_port()
    server = [str(programs / "postgres"), "-D", str(folder / "d"), "-p", str(port)]
    options = ["-k", str(folder / "d"), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    with open(folder / "log", "w") as output:
        process = subprocess.Popen([*drop, *server, *options], stderr=output, stdout=output, **run)
    url = f"postgresql://cria@127.0.0.1:{port}/postgres"
    try:
        _wait_for(url, folder / "log")
        yield url
    finally:
        process.send_signal(signal.SIGINT)  # does not wait for connections, as SIGTERM does
        process.wait()


def _wait_for(url: str, log: Path) -> None:
    engine = sa.create_engine(url.replace("postgresql", "postgresql+pg8000"))
    for _ in range(400):
        with contextlib.suppress(DBAPIError, OSError):
            engine.connect().close()
            engine.dispose()
            return
        time.sleep(0.1)
    raise AssertionError(f"PostgreSQL did not start: {log.read_text()[-2000:]}")


def empty(url: str) -> None:
    """Takes away whatever is in it."""
    engine = sa.create_engine(url.replace("postgresql", "postgresql+pg8000"))
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
