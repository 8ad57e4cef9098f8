"""Forged, doubled, replayed and strangers' votes: none is kept."""

import time
import uuid

import pytest
import sqlalchemy as sa

from apps.serve.page.store.database import Database
from apps.serve.page.store.tables import Battle, Conversation, Vote
from tests.serve.page.live import Person
from tests.serve.page.store.test_limits import together

TWO = {"ash": lambda messages: "one", "elm": lambda messages: "two"}


def kept(page) -> list[Vote]:
    database = Database(page.config.database_url)
    with database.read() as session:
        found = list(session.scalars(sa.select(Vote)))
    database.close()
    return found


def test_a_battle_takes_one_vote_and_says_so(open_page) -> None:
    page = open_page(TWO)
    person = Person(page.url)
    battle = person.wait(person.ask())
    assert battle["models"] == []
    voted = person.act("vote", battle=battle["id"], verdict="tie")
    assert voted["verdict"] == "tie" and sorted(voted["models"]) == ["ash", "elm"]
    assert person.act("vote", battle=battle["id"], verdict="tie")["verdict"] == "tie"
    assert "first one counts" in person.act("vote", battle=battle["id"], verdict="left")["error"]
    assert [(vote.battle_id, vote.verdict) for vote in kept(page)] == [(battle["id"], "tie")]


def test_what_comes_twice_at_one_moment_is_kept_once(open_page, database_url: str) -> None:
    page = open_page(TWO, database_url=database_url)
    person, id = Person(page.url), uuid.uuid4().hex
    asked = together(*[lambda: person.ask(id=id)] * 6)
    assert {one.get("id") for one in asked} == {asked[0]["id"]}, asked
    battle = person.wait(asked[0])
    verdicts = ("left", "left", "left", "tie", "tie", "right")
    said = together(
        *[lambda v=v: person.act("vote", battle=battle["id"], verdict=v) for v in verdicts]
    )
    (vote,) = kept(page)
    for one in said:
        assert one.get("verdict") == vote.verdict or "first one counts" in one["error"]
    assert len(page.upstream.requests) == 2


def test_a_vote_needs_two_complete_answers_of_two_models(open_page) -> None:
    page = open_page({**TWO, "oak": 500, "yew": lambda messages: ""})
    person = Person(page.url)
    for models in (["ash", "ash"], ["ash", "oak"], ["yew", "ash"]):
        battle = person.ask(kind="side_by_side", models=models)
        battle = person.wait(battle)
        assert "error" in person.act("vote", battle=battle["id"], verdict="left"), models
    page.upstream.piece_s = 0.2
    running = person.ask()
    assert "complete" in person.act("vote", battle=running["id"], verdict="left")["error"]
    assert kept(page) == []


def test_nobody_votes_on_a_battle_that_is_not_theirs(open_page) -> None:
    page = open_page(TWO)
    person, stranger = Person(page.url), Person(page.url)
    battle = person.wait(person.ask())
    for id in (battle["id"], uuid.uuid4().hex, "", "' OR 1=1 --"):
        assert "not here any more" in stranger.act("vote", battle=id, verdict="left")["error"]
        assert "error" in stranger.act("open", id=id)
    turns = [side[0]["id"] for side in battle["sides"]]
    assert stranger.events(turns) == []
    assert kept(page) == []


def test_a_vote_brings_no_texts_and_no_names(open_page) -> None:
    page = open_page(TWO)
    person = Person(page.url)
    battle = person.wait(person.ask())["id"]
    assert "error" in person.act("vote", battle=battle, verdict="best")
    assert "error" in person.act("vote", battle=battle)
    assert "error" not in person.act("vote", battle=battle, verdict="left", models=["x"], left="y")
    database = Database(page.config.database_url)
    with database.read() as session:
        models = {(b.left_model, b.right_model) for b in session.scalars(sa.select(Battle))}
    database.close()
    assert models <= {("ash", "elm"), ("elm", "ash")}


def test_an_answer_that_names_its_model_leaves_the_vote_out(open_page) -> None:
    page = open_page({"vicuna-7b": lambda m: "I am Vicuna.", "elm": lambda m: "two"})
    person = Person(page.url)
    battle = person.wait(person.ask())["id"]
    person.act("vote", battle=battle, verdict="left")
    assert [vote.left_out_by for vote in kept(page)] == ["names_a_model"]


def test_no_name_is_in_anything_a_blind_battle_sends(open_page) -> None:
    page = open_page({"vicuna-7b": lambda m: "one", "koala-13b": 503})
    person = Person(page.url)
    battle = person.ask()
    turns = [side[0]["id"] for side in battle["sides"]]
    sent = [battle, *person.events(turns), person.wait(battle)]
    sent.append(person.act("vote", battle=battle["id"], verdict="left"))
    turn = battle["sides"][0][0]["id"]
    token = person.act("share", id=battle["conversation"], turn=turn)["token"]
    paths = [f"/download/{battle['conversation']}.{kind}" for kind in ("json", "md")]
    paths += [f"/s/{token}.json", f"/s/{token}"]
    sent += [person.http.get(path).text for path in paths]
    bodies = ({"id": battle["conversation"]}, {"id": battle["id"]}, {"turn": turn})
    sent += [person.act(name, **body) for name in ("open", "retry", "sources") for body in bodies]
    sent.append(person.ask("And?", kind="chat", to=battle["conversation"]))
    assert "vicuna" not in str(sent) and "koala" not in str(sent) and "secret" not in str(sent)
    assert "Vote first" in str(sent), "the file is refused"


@pytest.mark.parametrize("ends", ["done", "stopped"])
def test_a_name_in_an_earlier_answer_leaves_the_vote_out_however_it_ended(
    open_page, ends: str
) -> None:
    def says(messages: list[dict[str, str]]) -> str:
        return "I am Vicuna. " + "Well, " * 100 if len(messages) == 1 else "Four."

    page = open_page({"vicuna-7b": says, "elm": says})
    person = Person(page.url)
    if ends == "stopped":
        page.upstream.piece_s = 0.05
    battle = person.ask()
    if ends == "stopped":
        time.sleep(0.8)
        person.act("stop", turns=[side[0]["id"] for side in battle["sides"]])
    page.upstream.piece_s = 0
    battle = person.wait(battle)
    assert {side[0]["status"] for side in battle["sides"]} == {ends}
    battle = person.wait(person.ask("What is 2 + 2?", to=battle["id"]))
    person.act("vote", battle=battle["id"], verdict="left")
    assert [vote.left_out_by for vote in kept(page)] == ["names_a_model"]


def test_a_battle_is_deleted_whole_and_the_style_table_stays(open_page) -> None:
    page = open_page(TWO)
    person = Person(page.url)
    battle = person.wait(person.ask())
    person.act("vote", battle=battle["id"], verdict="left")
    assert "error" not in person.act("delete", id=battle["conversation"])
    database = Database(page.config.database_url)
    with database.read() as session:
        assert list(session.scalars(sa.select(Conversation))) == []
    database.close()
    assert person.http.get("/style.json").status_code == 200
