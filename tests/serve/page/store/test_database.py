"""The schema: migrations up and down, and processes that start together, on both databases."""

import subprocess
import sys

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from apps.common.errors import ConfigError
from apps.serve.page.config import PageConfig
from apps.serve.page.store import log as arena_log
from apps.serve.page.store.database import Database, _engine
from apps.serve.page.store.tables import Base, LogEntry, Request, Turn
from apps.serve.page.web.app import database_url as database_url_of


def test_migrations_make_the_tables_of_the_page_and_take_them_away(database_url: str) -> None:
    database = Database(database_url)
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    database.downgrade("base")
    assert set(sa.inspect(database.engine).get_table_names()) == {"alembic_version"}
    database.close()
    Database(database_url).close()


def test_what_limits_counted_is_kept_over_the_migration(database_url: str) -> None:
    database = Database(database_url)
    database.downgrade("0003")
    with database.engine.begin() as connection:
        for statement in (
            "INSERT INTO visitors (id, created_s) VALUES ('v', 1)",
            "INSERT INTO conversations (id, visitor_id, created_s, kind, model, title, settings) "
            "VALUES ('c', 'v', 1, 'chat', 'm', 't', '{}')",
            "INSERT INTO turns (id, conversation_id, visitor_id, address, created_s, question, "
            "answer, status, finish_reason, error, flags, owner, beat_s, watched_s, "
            "completion_tokens) "
            "VALUES ('t', 'c', 'v', 'a', 2, 'q', 'x', 'done', '', '', '{}', '', 0, 0, 7)",
            "INSERT INTO lookups (id, visitor_id, address, created_s) VALUES ('l', 'v', 'a', 3)",
        ):
            connection.execute(sa.text(statement))
    database.close()
    database = Database(database_url)
    with database.read() as session:
        rows = session.scalars(sa.select(Request).order_by(Request.created_s))
        assert [(row.id, row.address, row.tokens) for row in rows] == [("t", "a", 7), ("l", "a", 0)]
        assert session.get_one(Turn, "t").answer == "x"
    database.downgrade("0003")
    with database.engine.begin() as connection:
        assert connection.scalar(sa.text("SELECT answer FROM turns WHERE id = 't'")) == "x"
    database.close()


def test_questions_of_before_have_their_conversations_system_message(database_url: str) -> None:
    database = Database(database_url)
    database.downgrade("0004")
    with database.engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO visitors (id, created_s) VALUES ('v', 1)"))
        for name, settings in (("c", '{"system": "Be \\"brief\\"."}'), ("d", "{}")):
            values = {"id": name, "settings": settings}
            connection.execute(
                sa.text(
                    "INSERT INTO conversations (id, visitor_id, created_s, kind, model, title, "
                    "settings) VALUES (:id, 'v', 1, 'chat', 'm', 't', :settings)"
                ),
                values,
            )
            connection.execute(
                sa.text(
                    "INSERT INTO turns (id, conversation_id, visitor_id, created_s, question, "
                    "answer, status, finish_reason, error, flags, owner, beat_s, watched_s) "
                    "VALUES (:id, :id, 'v', 2, 'q', 'x', 'done', '', '', '{}', '', 0, 0)"
                ),
                {"id": name},
            )
    database.close()
    database = Database(database_url)
    with database.read() as session:
        assert session.get_one(Turn, "c").system == 'Be "brief".'
        assert session.get_one(Turn, "d").system == ""
    database.close()


def test_eight_processes_start_at_once(database_url: str) -> None:
    code = (
        "import sys; from apps.serve.page.store.database import Database\n"
        "d = Database(sys.argv[1]); print(d.secret('cookies')); d.close()"
    )
    run = [sys.executable, "-c", code, database_url]
    started = [subprocess.Popen(run, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    secrets = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0] * 8 and len(secrets) == 1


def test_the_log_shows_where_it_was_changed(database_url: str) -> None:
    database = Database(database_url)
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


def test_a_database_that_cannot_keep_every_language_is_refused(postgres: str) -> None:
    engine = sa.create_engine(
        postgres.replace("postgresql", "postgresql+pg8000"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(sa.text("DROP DATABASE IF EXISTS plain"))
        made = "CREATE DATABASE plain ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
        connection.execute(sa.text(made))
    engine.dispose()
    with pytest.raises(ConfigError, match="SQL_ASCII; expected UTF8"):
        Database(postgres.removesuffix("postgres") + "plain")


def test_the_password_of_postgresql_may_be_in_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "from the environment")
    assert _engine("postgresql://cria@host/cria").url.password == "from the environment"
    assert _engine("postgresql://cria:own@host/cria").url.password == "own"


def test_a_url_that_leads_nowhere_is_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match="expected sqlite"):
        Database("mongo://x")


@pytest.mark.parametrize(
    "url", ["postgres+pg8000://cria:hunter2@db/v", "mysql://cria:h@nter2@db/v"]
)
def test_a_wrong_url_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"cria:\*\*\*@db") as raised:
        Database(url)
    assert "nter2" not in str(raised.value) and raised.value.__cause__ is None


def test_the_url_may_lie_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    page = PageConfig(database_url_env="VOTES_URL")
    with pytest.raises(ConfigError, match="VOTES_URL, which is not set"):
        database_url_of(page)
    monkeypatch.setenv("VOTES_URL", "sqlite:///votes.db")
    assert database_url_of(page) == "sqlite:///votes.db"
    with pytest.raises(ConfigError, match="give one"):
        PageConfig(database_url_env="VOTES_URL", database_url="sqlite:///page.db")
