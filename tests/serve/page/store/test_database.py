"""The schema: migrations up and down, and processes that start together, on both databases."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import DBAPIError

from apps.common.command.runtime import free_port
from apps.common.errors import ConfigError
from apps.serve.page.store import log as arena_log
from apps.serve.page.store.database import Database, _engine
from apps.serve.page.store.tables import Base, LogEntry


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a PostgreSQL of our own."""
    programs = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None)
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder = tmp_path_factory.mktemp("postgres")
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
    initdb = [str(programs / "initdb"), "-D", str(folder / "d"), "-U", "cria", "-A", "trust"]
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


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/page.db"
    found = request.getfixturevalue("postgres")
    _empty(found)
    return found


def _empty(url: str) -> None:
    engine = sa.create_engine(url.replace("postgresql", "postgresql+pg8000"))
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()


def test_migrations_make_the_tables_that_the_page_uses_and_take_them_away(url: str) -> None:
    database = Database(url)
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    database.downgrade("base")
    assert set(sa.inspect(database.engine).get_table_names()) == {"alembic_version"}
    database.close()
    Database(url).close()


def test_eight_processes_start_at_once(url: str) -> None:
    code = (
        "import sys; from apps.serve.page.store.database import Database\n"
        "d = Database(sys.argv[1]); print(d.secret('cookies')); d.close()"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    secrets = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0] * 8 and len(secrets) == 1


def test_the_log_shows_where_it_was_changed(url: str) -> None:
    database = Database(url)
    for verdict in ("left", "right", "tie"):
        with database.write() as session:
            arena_log.append(database, session, "vote", {"verdict": verdict})
    with database.read() as session:
        assert arena_log.first_break(session) is None
    with database.write() as session:
        entry = session.get_one(LogEntry, 2)
        entry.body = entry.body.replace("right", "left")
    with database.read() as session:
        assert arena_log.first_break(session) == 2
    database.close()


def test_the_password_of_postgresql_may_be_in_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "from the environment")
    assert _engine("postgresql://cria@host/cria").url.password == "from the environment"
    assert _engine("postgresql://cria:own@host/cria").url.password == "own"


def test_a_url_that_leads_nowhere_is_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match="expected sqlite"):
        Database("mongo://x")
