"""What `votes`, `conversations` and `arena` write and find, over a page that has run."""

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from apps.common.command import cli
from apps.common.command.runtime import free_port
from apps.data.rules.profiles import FLAGS, Rules
from apps.serve.__main__ import COMMANDS
from apps.serve.page.store.database import Database
from apps.serve.page.store.retention import forget_older
from apps.serve.page.store.tables import LogEntry, Vote
from tests.data.commands import rows_of, run_clean
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


@pytest.mark.parametrize("kind", ["empty", "text", "folder", "other"])
def test_a_file_that_is_no_page_s_database_is_told_and_left_alone(
    tmp_path: Path, kind: str, capsys
) -> None:
    path = tmp_path / "page.db"
    if kind == "folder":
        path.mkdir()
    elif kind == "other":
        with contextlib.closing(sqlite3.connect(path)) as file:
            file.execute("CREATE TABLE passages (text)")
    else:
        path.write_text("" if kind == "empty" else "hello\n")
    before = [] if kind == "folder" else path.read_bytes()
    for command in (["votes", "ratings"], ["conversations", "export"], ["arena", "verify"]):
        assert cli.run("apps.serve", COMMANDS, [*command, str(path)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and "is no database of a page; give the page.db" in err
    assert (list(path.iterdir()) if kind == "folder" else path.read_bytes()) == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_database_that_does_not_answer_is_told_without_its_password(capsys) -> None:
    url = f"postgresql://cria:secret@127.0.0.1:{free_port()}/cria"
    assert cli.run("apps.serve", COMMANDS, ["votes", "export", url]) == 1
    told = capsys.readouterr().err
    assert "cria:***@127.0.0.1" in told and "cannot be opened" in told
    assert "secret" not in told and len(told.splitlines()) == 1


def test_a_database_that_is_kept_from_us_is_not_called_another_file(
    used: Path, monkeypatch, capsys
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(sqlite3, "connect", refuse)
    assert cli.run("apps.serve", COMMANDS, ["votes", "ratings", str(used)]) == 2
    assert "page.db cannot be read (database is locked)" in capsys.readouterr().err


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


SAID = {
    "Why is the sky blue?": "Short light scatters:\n\n1. sun\n2. air\n\n$I \\propto \\lambda^{-4}$",
    "Write a page for me, please.": '```html\n<p class="x">Hi &amp; bye</p>\n```\n\nSave \\_it\\_.',
    "Und auf Deutsch? <b>Bitte!</b>": "»Grüß Gott« \U0001f600\n\n| a | b |\n|---|---|\n| 1 | 2 |",
    "Draw it with `a < b && c > d`.": "<svg><text>no page</text></svg> is what you asked for.",
    "Tell me a long story.": "Once upon a time there was a fox. " * 40,
}


def test_an_export_goes_through_clean_unchanged(open_page, tmp_path: Path) -> None:
    """All that was said on the page comes out of `clean` with the same text, and is counted."""
    page = open_page({"ash": lambda m: SAID[m[-1]["content"]]}, terms="Be kind.")
    person = Person(page.url)
    asked = list(SAID)
    settings = {"kind": "chat", "system": "Be brief,\nand kind."}
    chat = person.wait(person.ask(asked[0], agreed=True, models=["ash"], **settings))
    for text in asked[1:3]:
        chat = person.wait(person.ask(text, to=chat["id"], **settings))
    person.wait(person.ask(asked[3], kind="chat", models=["ash"]))
    page.upstream.piece_s = 0.2
    story = person.ask(asked[4], kind="chat", models=["ash"])
    turn = story["turns"][-1]["id"]
    next(event for event in person.follow([turn]) if event.get("html"))
    person.act("stop", turns=[turn])
    page.upstream.piece_s = 0.0
    person.wait(story)

    dump = tmp_path / "conversations.json"
    records = lines("conversations", "export", str(tmp_path / "page.db"), out=dump)
    ledger = run_clean(tmp_path / "clean", dump, profile="none")
    said = [[t["value"] for t in record["conversations"]] for record in records]
    assert said[0] == ["Be brief,\nand kind.", *(s for a in asked[:3] for s in (a, SAID[a]))]
    assert said[1] == [asked[3], SAID[asked[3]]]
    rows = rows_of(tmp_path / "clean")
    assert [[m["content"] for m in row["messages"]] for row in rows] == said
    assert [row["source_id"] for row in rows] == [record["id"] for record in records]
    assert {row["model"] for row in rows} == {"ash"}
    assert ledger["records"]["kept"] == ledger["records"]["input"] == len(records) == 3
    assert ledger["messages"]["kept"] == sum(map(len, said))
    assert ledger["layouts"] == {"cria": 3} and ledger["ignored"] == {"category": 3}

    assert [record["flags"] for record in records] == [[], [], ["cut_off"]]
    ledger = run_clean(tmp_path / "flagged", dump, profile="none", rules=Rules(flagged=FLAGS))
    assert ledger["records"]["dropped"] == {"flagged": 1}
    assert [row["detail"] for row in rows_of(tmp_path / "flagged" / "dropped")] == ["cut_off"]


def test_each_exported_answer_has_the_system_message_that_it_was_given(
    open_page, tmp_path: Path
) -> None:
    """What `clean` has of it, cut behind each answer to learn, is what the model was asked."""
    page = open_page({"ash": lambda m: f"Answer {len(page.upstream.requests)}, as you wished it."})
    person = Person(page.url)
    given = ["Be brief.", "Rhyme, please.", "Rhyme, please.", "", "Be brief."]
    chat = None
    for i, system in enumerate(given):
        to = {"to": chat["id"]} if chat else {"models": ["ash"]}
        chat = person.wait(person.ask(f"Question {i} of it?", kind="chat", system=system, **to))
    assert chat is not None
    first, second = (turn["id"] for turn in chat["turns"][:2])
    person.wait(  # a branch behind the first answer
        person.ask("And again?", kind="chat", system="Rhyme, please.", to=chat["id"], parent=first)
    )

    dump = tmp_path / "conversations.json"
    records = lines("conversations", "export", str(tmp_path / "page.db"), out=dump)
    assert len({record["id"] for record in records}) == len(records) == 4
    assert second not in {record["id"] for record in records}
    ledger = run_clean(tmp_path / "clean", dump, profile="none")
    assert ledger["records"]["kept"] == 4 and ledger["ignored"] == {"category": 4}
    learned = [
        [*row["messages"][:i], message]
        for row in rows_of(tmp_path / "clean")
        for i, message in enumerate(row["messages"])
        if message["role"] == "assistant" and message.get("weight") != 0
    ]
    seen = {talk[-1]["content"]: [(m["role"], m["content"]) for m in talk[:-1]] for talk in learned}
    asked = {
        f"Answer {i}, as you wished it.": [(m["role"], m["content"]) for m in request["messages"]]
        for i, request in enumerate(page.upstream.requests, 1)
    }
    assert seen == asked and len(learned) == len(asked) == 6
    saved = person.http.get(f"/download/{chat['id']}.json").json()["turns"]
    systems = [m["content"] for turn in saved for m in turn["messages"] if m["role"] == "system"]
    assert systems == [system for system in [*given, "Rhyme, please."] if system]


def test_a_turn_without_an_answer_splits_no_conversation(open_page, tmp_path: Path) -> None:
    """What was exported is what the model was shown: the failed turn is skipped, not a cut."""
    page = open_page({"ash": lambda m: "" if m[-1]["content"] == "Fail?" else f"{len(m)} seen"})
    person = Person(page.url)
    chat = person.wait(person.ask("My name is Bo.", kind="chat", models=["ash"]))
    for text in ("Fail?", "What is my name?"):
        chat = person.wait(person.ask(text, kind="chat", to=chat["id"]))
    out = tmp_path / "dump.jsonl"
    (record,) = lines("conversations", "export", str(tmp_path / "page.db"), out=out)
    said = [turn["value"] for turn in record["conversations"]]
    assert said == ["My name is Bo.", "1 seen", "What is my name?", "3 seen"]


def test_who_agreed_to_nothing_is_left_out_where_that_is_asked(open_page, tmp_path: Path) -> None:
    page = open_page({"ash": lambda m: "I am ash, and glad to be."})
    person = Person(page.url)
    person.wait(person.ask("Who are you, if I may ask?", kind="chat", models=["ash"]))
    dump = tmp_path / "conversations.json"
    lines("conversations", "export", str(tmp_path / "page.db"), out=dump)
    assert run_clean(tmp_path / "all", dump)["records"]["kept"] == 1
    ledger = run_clean(tmp_path / "clean", dump, rules=Rules(flagged=("no_consent",)))
    assert ledger["records"]["dropped"] == {"flagged": 1}


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


def test_what_a_link_shows_is_forgotten_and_nothing_else(open_page, tmp_path: Path, capsys) -> None:
    page = open_page({"ash": lambda m: "one", "elm": lambda m: "two"})
    person, file = Person(page.url), str(tmp_path / "page.db")
    battle = person.wait(person.ask("of two"))
    chat, other = (person.wait(person.ask(t, kind="chat", models=["ash"])) for t in "xy")
    turn = battle["sides"][0][0]["id"]
    of_battle = person.act("share", id=battle["conversation"], turn=turn)["token"]
    of_chat = person.act("share", id=chat["id"], turn=chat["turns"][0]["id"])["token"]
    for link in (f"{page.url}/s/{of_battle}", of_chat):
        forget = ["conversations", "forget", file, "--link", link]
        assert cli.run("apps.serve", COMMANDS, forget) == 0
        assert cli.run("apps.serve", COMMANDS, forget) == 2
        assert "no conversation was deleted" in capsys.readouterr().err
    (left,) = lines("conversations", "export", file, out=tmp_path / "dump.jsonl")
    assert left["conversations"][0]["value"] == "y"
    assert person.http.get(f"/s/{of_chat}.json").status_code == 404
    for wrong in (["--link", "https://x/s/short"], ["--link", of_chat, "--visitor", "v"]):
        assert cli.run("apps.serve", COMMANDS, ["conversations", "forget", file, *wrong]) == 2
    number = person.act("start")["visitor"]
    assert (
        cli.run("apps.serve", COMMANDS, ["conversations", "forget", file, "--visitor", number]) == 0
    )
    assert "not here" in person.act("open", id=other["id"])["error"]


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
