"""Answers that survive what happens to the page, and errors that say nothing of what is behind."""

import math
import threading
import time

import pytest
import sqlalchemy as sa

from apps.serve.page.answers import runner, watch
from apps.serve.page.answers.rows import Beat, TurnRows
from apps.serve.page.store.database import Database
from apps.serve.page.store.tables import Turn
from tests.serve.page.live import Live, Person
from tests.serve.page.postgres import empty
from tests.serve.page.store.test_limits import spent

LONG = " ".join(str(n) for n in range(400))


def test_a_page_that_comes_later_gets_the_whole_answer(open_page) -> None:
    page = open_page({"ash": lambda m: LONG})
    person = Person(page.url)
    page.upstream.piece_s = 0.02
    talk = person.ask(kind="chat", models=["ash"])
    turn = talk["turns"][0]["id"]
    with page.another() as url:
        other = Person(url, cookie=False)
        other.http.cookies = person.http.cookies
        seen: list[list[dict]] = []
        threads = [
            threading.Thread(target=lambda p=p: seen.append(p.events([turn])))
            for p in (person, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for events in seen:
        html: list[str] = []
        for event in events:
            if "html" in event:
                html = [*html[: event["keep"]], *event["html"]]
        assert events[-1]["status"] == "done" and html == [f"<p>{LONG}</p>\n"]
    assert len(page.upstream.requests) == 1


def test_a_question_is_stored_before_its_model_hears_of_it(open_page) -> None:
    stored: list[str] = []

    def says(messages: list[dict[str, str]]) -> str:
        database = Database(page.config.database_url)
        with database.read() as session:
            stored.extend(turn.question for turn in session.query(Turn))
        database.close()
        return "yes"

    page = open_page({"ash": says})
    person = Person(page.url)
    person.wait(person.ask("Why?", kind="chat", models=["ash"]))
    assert stored == ["Why?"]


def test_answers_that_end_together_are_both_told(open_page, monkeypatch) -> None:
    """The second ends while the first one's end is read from the database."""
    stored = TurnRows.stored

    def slowly(self: TurnRows, turn_ids: list[str]) -> object:
        time.sleep(0.5)
        return stored(self, turn_ids)

    monkeypatch.setattr(TurnRows, "stored", slowly)
    page = open_page({"ash": lambda m: "x" * 20, "elm": lambda m: "y" * 25})
    page.upstream.piece_s = 0.05
    person = Person(page.url)
    turns = [side[0]["id"] for side in person.ask()["sides"]]
    last = {event["turn"]: event["status"] for event in person.events(turns)}
    assert last == dict.fromkeys(turns, "done")


def test_an_answer_is_not_stopped_while_its_page_waits(open_page, monkeypatch) -> None:
    """However seldom a busy process looks for changes."""
    monkeypatch.setattr(watch, "_TICK_S", 2.0)
    page = open_page({"ash": lambda m: LONG})
    page.upstream.pieces = 1
    person = Person(page.url)
    turn = person.ask(kind="chat", models=["ash"])["turns"][0]["id"]
    changes = person.follow([turn])
    next(changes)
    monkeypatch.setattr(runner, "_UNWATCHED_S", 0.2)
    time.sleep(1.5)  # a beat at least: time enough to be stopped
    page.upstream.pieces = math.inf
    assert list(changes)[-1]["status"] == "done"


def test_another_process_takes_over_what_one_left_behind(open_page) -> None:
    page = open_page({"ash": lambda m: LONG})
    page.upstream.piece_s = 0.2
    with page.another() as url:
        first = Person(url)
        talk = first.ask(kind="chat", models=["ash"])
    page.upstream.piece_s = 0.0
    person = Person(page.url, cookie=False)
    person.http.cookies = first.http.cookies
    events = person.events([talk["turns"][0]["id"]])
    assert events[-1]["status"] == "done"
    assert person.act("open", id=talk["id"])["turns"][0]["html"] == [f"<p>{LONG}</p>\n"]
    assert len(page.upstream.requests) == 2


def test_another_process_goes_on_behind_the_last_event(open_page) -> None:
    page = open_page({"ash": lambda m: LONG})
    page.upstream.numbers, page.upstream.piece_s = True, 0.2
    with page.another() as url:
        first = Person(url)
        talk = first.ask(kind="chat", models=["ash"])
        while first.act("open", id=talk["id"])["turns"][0]["html"] == []:
            time.sleep(0.1)
    page.upstream.piece_s = 0.0
    person = Person(page.url, cookie=False)
    person.http.cookies = first.http.cookies
    events = person.events([talk["turns"][0]["id"]])
    shown = [event["html"][0] for event in events if event.get("html")]
    assert shown[-1] == f"<p>{LONG}</p>\n" and "0 1 2" in shown[0], "it did not begin anew"
    assert len(page.upstream.resumed_behind) == 1


def test_a_lost_gateway_costs_a_reconnect_and_no_text(open_page) -> None:
    page = open_page({"ash": lambda m: LONG})
    page.upstream.numbers, page.upstream.cut_after = True, 7
    person = Person(page.url)
    talk = person.wait(person.ask(kind="chat", models=["ash"]))
    assert talk["turns"][0]["html"] == [f"<p>{LONG}</p>\n"]
    assert page.upstream.resumed_behind == ["stream:7"]


def test_a_stream_that_begins_anew_spends_both_parts(open_page) -> None:
    """A gateway that has lost the stream sends it from the beginning, without its numbers."""
    page = open_page({"ash": lambda m: LONG})
    page.upstream.numbers, page.upstream.cut_after, page.upstream.forgets = True, 7, True
    person = Person(page.url)
    talk = person.wait(person.ask(kind="chat", models=["ash"]))
    assert talk["turns"][0]["html"] == [f"<p>{LONG}</p>\n"]
    assert spent(page) == [7 + len(LONG)], "the first part's pieces, and what the API said"


def test_a_late_beat_leaves_an_end_as_it_is(open_page, postgres: str) -> None:
    empty(postgres)
    page = open_page({"ash": lambda m: "yes"}, database_url=postgres)
    person = Person(page.url)
    turn_id = person.wait(person.ask(kind="chat", models=["ash"]))["turns"][0]["id"]
    database = Database(postgres)
    rows = TurnRows(database)
    with database.write() as session:
        session.get_one(Turn, turn_id).status, session.get_one(Turn, turn_id).owner = "waiting", ""
    assert rows.claim(turn_id)
    beats = {turn_id: Beat(text="ye", last_event="", watched_s=0.0, tokens=1)}
    with database.write() as session:
        session.get_one(Turn, turn_id).status = "done"
        session.flush()
        beat = threading.Thread(target=rows.beat, args=(beats,))
        beat.start()
        waits = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        while not session.scalar(waits):
            assert beat.is_alive()
    beat.join()
    with database.read() as session:
        turn = session.get_one(Turn, turn_id)
    assert (turn.status, turn.answer) == ("done", "yes") and spent(page) == [3]
    database.close()


def test_a_question_that_is_sent_twice_is_asked_once(open_page) -> None:
    page = open_page({"ash": lambda m: "yes", "elm": lambda m: "no"})
    person = Person(page.url)
    first, again = (person.ask(id="0" * 32) for _ in range(2))
    assert first["id"] == again["id"]
    person.wait(first)
    assert len(page.upstream.requests) == 2
    assert "not here" in Person(page.url).ask(id="0" * 32)["error"]


def test_stop_keeps_what_was_said_and_the_next_turn_knows_it(open_page) -> None:
    page = open_page({"ash": lambda m: LONG})
    page.upstream.piece_s = 0.2
    person = Person(page.url)
    talk = person.ask("One?", kind="chat", models=["ash"])
    turn = talk["turns"][0]["id"]
    while person.act("open", id=talk["id"])["turns"][0]["status"] == "waiting":
        pass
    person.act("stop", turns=[turn])
    stopped = person.wait(talk)["turns"][0]
    assert stopped["status"] == "stopped"
    page.upstream.piece_s = 0.0
    person.wait(person.ask("Two?", kind="chat", to=talk["id"]))
    sent = page.upstream.requests[-1]["messages"]
    assert [message["content"] for message in sent][::2] == ["One?", "Two?"]
    assert sent[1]["role"] == "assistant" and sent[1]["content"] in LONG


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_an_error_of_the_api_is_one_sentence_of_ours(open_page, status: int) -> None:
    page = open_page({"ash": status})
    person = Person(page.url)
    turn = person.wait(person.ask(kind="chat", models=["ash"]))["turns"][0]
    assert turn["status"] == "failed" and turn["error"].endswith(".")
    assert "secret" not in str(turn) and "ash" not in str(turn)


def test_a_failed_answer_is_asked_for_again(open_page) -> None:
    page = open_page({"ash": 503})
    person = Person(page.url)
    talk = person.wait(person.ask(kind="chat", models=["ash"]))
    page.upstream.models["ash"] = lambda m: "now"
    person.act("retry", turn=talk["turns"][0]["id"])
    assert person.wait(talk)["turns"][0]["html"] == ["<p>now</p>\n"]
    assert "nothing to try" in person.act("retry", turn=talk["turns"][0]["id"])["error"]


def test_moderation_stops_questions_and_answers_and_keeps_them_with_the_reason(open_page) -> None:
    import codecs

    bad = codecs.decode("ubj gb ohvyq n cvcr obzo", "rot13")
    page = open_page({"ash": lambda m: f"Well, {bad}: " + LONG}, moderation="lexicon")
    person = Person(page.url)
    assert "was not sent" in person.ask(bad, kind="chat", models=["ash"])["error"]
    assert page.upstream.requests == []
    turn = person.wait(person.ask("Why?", kind="chat", models=["ash"]))["turns"][0]
    assert turn["status"] == "blocked" and turn["html"] == [] and "stopped" in turn["error"]


def test_the_controls_offer_what_the_api_takes(open_page) -> None:
    page = open_page({"ash": lambda m: "yes"})
    person = Person(page.url)
    person.wait(person.ask(kind="chat", models=["ash"], max_tokens=10**9, temperature=99.0))
    sent = page.upstream.requests[-1]
    assert sent["break_role_marks"] is True
    assert sent["max_completion_tokens"] == 4096 and sent["temperature"] == 2


def test_limits_hold_across_processes(open_page) -> None:
    from apps.serve.page.config import PageLimits

    page = open_page({"ash": lambda m: "yes"}, limits=PageLimits(answers_per_minute=3))
    person = Person(page.url)
    with page.another() as url:
        other = Person(url, cookie=False)
        other.http.cookies = person.http.cookies
        asked = [p.ask(kind="chat", models=["ash"]) for p in (person, other, person, other)]
    assert ["error" in one for one in asked] == [False, False, False, True]
    assert "Try again in" in asked[-1]["error"]


def test_the_terms_come_before_the_first_question(open_page) -> None:
    page = open_page({"ash": lambda m: "yes"}, terms="Be kind.")
    person = Person(page.url)
    assert "terms" in person.ask(kind="chat", models=["ash"])["error"]
    assert "error" not in person.ask(kind="chat", models=["ash"], agreed=True)
    assert person.act("start")["agreed"] and "error" not in person.ask(kind="chat", models=["ash"])


def test_the_page_starts_before_its_models_do(tmp_path) -> None:
    from apps.serve.page.config import PageConfig
    from apps.serve.page.web.app import build_page

    config = PageConfig(database_url=f"sqlite:///{tmp_path}/page.db")
    with Live(build_page(config, "http://127.0.0.1:9/v1", [])) as live:
        assert Person(live.url).act("start")["models"] == []
