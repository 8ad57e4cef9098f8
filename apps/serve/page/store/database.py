"""The page's database: SQLite by default, PostgreSQL by URL; always at the newest migration.

Everything that a visitor did is here and nowhere else, so any process of the page can serve anyone.
"""

import contextlib
import fcntl
import os
import re
import secrets
import sqlite3
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.orm import Session

from apps.common.errors import ConfigError, CriaError, InputError, NotFoundError
from apps.serve.page.store.tables import LogEntry, Secret

_MIGRATIONS = Path(__file__).with_name("migrations")
_ADVISORY_LOCK = 7_261_001
"""PostgreSQL's name of the migration lock, an arbitrary number; the log's is one more, that
of the limits two."""
_LOCK_TIMEOUT_S = 30
INSERTS = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
"""how a row is inserted that may be there already, by the kinds of database that we know"""
_WRITES = "cria_writes"


def new_id() -> str:
    return uuid.uuid4().hex


def now_s() -> float:
    return time.time()


class Database:
    """Sessions for reading and for writing; the schema is brought up to date at the start."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self._writing = self.engine.execution_options(**{_WRITES: True})
        try:
            with _migration_lock(self.engine) as connection:
                _check_encoding(connection)
                _alembic(connection, command.upgrade, "head")
        except BaseException:
            self.close()
            raise

    def read(self) -> Session:
        """For looking only: what is changed in it is not kept."""
        return Session(self.engine, expire_on_commit=False)

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction; SQLite takes its lock at the beginning, so that none has to restart."""
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    def secret(self, name: str) -> str:
        """The same random value in every process, made by whichever asks first."""
        with self.read() as session:
            known = session.get(Secret, name)
        if known is not None:
            return known.value
        with contextlib.suppress(IntegrityError), self.write() as session:
            session.add(Secret(name=name, value=secrets.token_urlsafe(48)))
        with self.read() as session:
            return session.get_one(Secret, name).value

    def lock_log(self, session: Session) -> LogEntry | None:
        """The last entry of the log; nobody else can append until this transaction ends.

        `session` comes from `write`. SQLite has one writer, so only PostgreSQL needs a lock here.
        """
        if self.engine.dialect.name == "postgresql":
            session.execute(sa.text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK + 1})"))
        return session.scalar(sa.select(LogEntry).order_by(LogEntry.position.desc()).limit(1))

    def downgrade(self, revision: str) -> None:
        with _migration_lock(self.engine) as connection:
            _alembic(connection, command.downgrade, revision)

    def close(self) -> None:
        self.engine.dispose()


def lock_counts(session: Session) -> None:
    """Nobody else counts for the limits until this transaction ends.

    `session` comes from `write`. As for the log, only PostgreSQL needs a lock here.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(sa.text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK + 2})"))


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+pg8000")
            # As PostgreSQL's own programs do, so that no file of settings holds a password.
            parsed = parsed.set(password=parsed.password or os.environ.get("PGPASSWORD"))
        if parsed.get_backend_name() not in INSERTS:
            raise NoSuchModuleError(parsed.drivername)
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed)
        return sa.create_engine(parsed, pool_pre_ping=True, pool_size=8, max_overflow=24)
    except (ArgumentError, NoSuchModuleError, ImportError):
        shown = _without_password(url)
        raise ConfigError(
            f"page.database_url is {shown!r}, which SQLAlchemy cannot open; expected "
            "sqlite:///file.db or postgresql://user@host/name."
        ) from None


def _without_password(url: str) -> str:
    """Also of a URL that SQLAlchemy cannot read: postgres://cria:***@db of postgres://cria:pw@db."""
    return re.sub(r"(://[^:@/]*:).*@", r"\1***@", url)


def _sqlite(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": _LOCK_TIMEOUT_S}, pool_size=8)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: object) -> None:
        connection.isolation_level = None  # SQLAlchemy begins transactions below, not the driver
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begun(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextlib.contextmanager
def _migration_lock(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Processes that start together migrate one after the other."""
    with contextlib.ExitStack() as stack:
        if engine.dialect.name == "sqlite" and engine.url.database not in (None, "", ":memory:"):
            lock = stack.enter_context(open(f"{engine.url.database}.lock", "w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        connection = stack.enter_context(engine.begin())
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        yield connection


def _check_encoding(connection: sa.Connection) -> None:
    """initdb of a server without a locale makes databases of ASCII, which keep few languages."""
    if connection.dialect.name != "postgresql":
        return
    encoding = connection.scalar(sa.text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise ConfigError(
            f"The database of page.database_url has the encoding {encoding}; expected UTF8, as "
            "`createdb -E UTF8 -T template0 NAME` makes it."
        )


def _alembic(connection: sa.Connection, run: Any, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    run(config, revision)


@contextlib.contextmanager
def open_existing(place: str) -> Iterator[Database]:
    """The database of a page that has run, by its file or URL. Raises InputError."""
    url = place if "://" in place else f"sqlite:///{place}"
    path = url.removeprefix("sqlite:///")
    if url.startswith("sqlite:") and not Path(path).exists():
        raise NotFoundError(
            f"There is no database at {path}; give the page.db of a page that has run, or its URL."
        )
    if url.startswith("sqlite:") and not _is_of_a_page(path):
        raise InputError(
            f"{path} is no database of a page; give the page.db of a page that has run, or its URL."
        )
    try:
        database = Database(url)
    except DBAPIError as error:
        reason = str(error.orig).splitlines()[0][:300]
        raise CriaError(f"{_without_password(url)} cannot be opened: {reason}") from error
    try:
        yield database
    finally:
        database.close()


def _is_of_a_page(path: str) -> bool:
    """Looked at without writing: opening it as one would make our tables in it."""
    if not Path(path).is_file():
        return False
    try:
        uri = f"{Path(path).absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as file:
            known = file.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")
            return known.fetchone() is not None
    except sqlite3.OperationalError as error:
        raise InputError(
            f"{path} cannot be read ({error}); run as the page's user, or when nobody locks it."
        ) from error
    except sqlite3.DatabaseError:
        return False
