"""What `votes`, `conversations` and `arena` write and find, over a page that has run."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from apps.common.command import cli
from apps.serve.__main__ import COMMANDS
from apps.serve.page.store.database import Database
from apps.serve.page.store.retention import forget_older
from apps.serve.page.store.tables import LogEntry, Vote
from tests.serve.page.live import Person


@pytest.fixture
def used(open_page, tmp_path: Path) -> Path:
    """The database of a page with two votes, a chat with a branch, and terms agreed to."""
    page = open_page({"ash": lambda m: "one", "elm": lambda m: "two"}, terms="Be kind.")
    person = Person(page.url)
    for text, verdict in (("Why is the sky blue?", "left"), ("Warum?", "tie")):
        battle = person.wait(person.ask(text, agreed=True))
        person.act("vote", battle=battle["id"], verdict=verdict)
    chat = person.wait(person.ask("Hello", kind="chat", models=["ash"]))
    person.wait(person.ask("Edited", kind="chat", to=chat["id"], first=True))
    person.http.get("/leaderboard.json")
    return tmp_path / "page.db"


def lines(*arguments: str, out: Path) -> list[dict]:
    assert cli.run("apps.serve", COMMANDS, [*arguments, "--out", str(out)]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_votes_are_exported_and_rated(used: Path, tmp_path: Path) -> None:
    first, second = lines("votes", "export", str(used), out=tmp_path / "votes.jsonl")
    assert first["verdict"] == "left" and sorted(first["models"]) == ["ash", "elm"]
    assert [talk[0]["content"] for talk in first["conversations"]] == ["Why is the sky blue?"] * 2
    assert first["counted"] and first["blind"] and first["category"] == "english"
    assert second["category"] == "other languages"
    assert len(first["visitor"]) == 16 and first["visitor"] == second["visitor"]
    rows = lines("votes", "ratings", str(used), out=tmp_path / "ratings.jsonl")
    assert {row["model"] for row in rows} == {"ash", "elm"}


def test_votes_that_prefer_a_side_are_pairs_to_train_on(used: Path, tmp_path: Path) -> None:
    (pair,) = lines("votes", "pairs", str(used), out=tmp_path / "pairs.jsonl")
    (vote, _) = lines("votes", "export", str(used), out=tmp_path / "votes.jsonl")
    texts = {"ash": "one", "elm": "two"}
    assert pair["models"] == vote["models"] and pair["id"] == vote["battle_id"]
    assert [pair["chosen"], pair["rejected"]] == [texts[name] for name in pair["models"]]
    assert pair["messages"] == [{"role": "user", "content": "Why is the sky blue?"}]
    assert (pair["source"], pair["weight"], pair["visitor"]) == ("vote", 1.0, vote["visitor"])
    assert pair["consent"] is True


def test_conversations_are_a_dump_that_data_reads(used: Path, tmp_path: Path) -> None:
    records = lines("conversations", "export", str(used), out=tmp_path / "dump.jsonl")
    assert len(records) == 2 * 2 + 2 and all(record["consent"] for record in records)
    chats = [r["conversations"] for r in records if r["conversations"][0]["value"] != "Warum?"]
    assert [{"from": "human", "value": "Edited"}, {"from": "gpt", "value": "one"}] in chats
    assert {record["category"] for record in records} == {"english", "other languages"}


def test_a_visitor_is_forgotten_and_the_votes_stay(used: Path, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{used}")
    with database.read() as session:
        visitor = session.scalars(sa.select(Vote.visitor_id)).first()
    arguments = ["conversations", "forget", str(used), "--visitor", str(visitor)]
    assert cli.run("apps.serve", COMMANDS, arguments) == 0
    assert lines("conversations", "export", str(used), out=tmp_path / "dump.jsonl") == []
    assert len(lines("votes", "export", str(used), out=tmp_path / "votes.jsonl")) == 2
    assert cli.run("apps.serve", COMMANDS, ["arena", "verify", str(used)]) == 0
    assert cli.run("apps.serve", COMMANDS, ["conversations", "forget", str(used)]) == 2
    assert forget_older(database, 1) == 0
    database.close()


def test_verify_finds_what_was_changed_afterwards(used: Path, capsys) -> None:
    arguments = ["arena", "verify", str(used)]
    assert cli.run("apps.serve", COMMANDS, arguments) == 0
    database = Database(f"sqlite:///{used}")
    with database.write() as session:
        vote = session.scalars(sa.select(Vote)).first()
        assert vote is not None
        vote.verdict = "right"
    assert cli.run("apps.serve", COMMANDS, arguments) == 1
    assert "not what the arena's log says" in capsys.readouterr().err
    with database.write() as session:
        session.delete(session.get_one(LogEntry, 2))
    assert cli.run("apps.serve", COMMANDS, arguments) == 1
    assert "Entry 2" in capsys.readouterr().err
    database.close()


def test_a_database_that_is_not_there_is_refused(tmp_path: Path, capsys) -> None:
    assert cli.run("apps.serve", COMMANDS, ["votes", "export", str(tmp_path / "x.db")]) == 2
    assert "no database" in capsys.readouterr().err
