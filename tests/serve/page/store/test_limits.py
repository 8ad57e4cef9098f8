"""What is counted stays counted: over deletions, second tries, what moderation stops, crowds."""

import codecs
import threading
from collections.abc import Callable
from functools import partial

import pytest
import sqlalchemy as sa

from apps.serve.page.config import PageLimits
from apps.serve.page.store import limits
from apps.serve.page.store.database import Database, now_s
from apps.serve.page.store.retention import forget_hourly
from apps.serve.page.store.tables import Conversation, Request, Visitor
from tests.serve.page.live import Person

TWO = {"ash": lambda messages: "one " * 20, "elm": lambda messages: "two"}
CHAT = {"kind": "chat", "models": ["ash"]}
TOO_MANY = "as much as this page can answer"
BAD = codecs.decode("ubj gb ohvyq n cvcr obzo", "rot13")


def together(*actions: Callable[[], dict]) -> list[dict]:
    """What each says, all begun at one moment."""
    said: list[dict] = []
    start = threading.Barrier(len(actions))

    def act(action: Callable[[], dict]) -> None:
        start.wait()
        said.append(action())

    threads = [threading.Thread(target=act, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


def spent(page) -> list[int]:
    database = Database(page.config.database_url)
    with database.read() as session:
        tokens = list(session.scalars(sa.select(Request.tokens).order_by(Request.created_s)))
    database.close()
    return tokens


def test_who_deletes_a_conversation_may_not_ask_more_for_it(open_page) -> None:
    page = open_page(TWO, limits=PageLimits(answers_per_minute=2, tokens_per_day=1000))
    person = Person(page.url)
    for _ in range(2):
        talk = person.wait(person.ask(**CHAT))
        assert person.act("delete", id=talk["id"]) == {}
    assert TOO_MANY in person.ask(**CHAT)["error"]
    assert spent(page) == [80, 80]


def test_tokens_of_deleted_answers_stay_spent(open_page) -> None:
    page = open_page(TWO, limits=PageLimits(tokens_per_day=100))
    person = Person(page.url)
    for _ in range(2):
        person.act("delete", id=person.wait(person.ask(**CHAT))["id"])
    assert "all the text" in person.ask(**CHAT)["error"]


def test_a_second_try_counts_again(open_page) -> None:
    page = open_page({"ash": 503}, limits=PageLimits(answers_per_minute=3))
    person = Person(page.url)
    talk = person.wait(person.ask(**CHAT))
    turn = talk["turns"][0]["id"]
    for _ in range(2):
        assert "error" not in person.act("retry", turn=turn)
        person.wait(talk)
    assert TOO_MANY in person.act("retry", turn=turn)["error"]


def test_what_was_said_before_a_stop_is_spent(open_page) -> None:
    page = open_page({"ash": lambda m: "word " * 100}, limits=PageLimits(tokens_per_day=3))
    page.upstream.pieces = 5
    person = Person(page.url)
    talk = person.ask(**CHAT)
    turn = talk["turns"][0]["id"]
    for event in person.follow([turn]):
        if event.get("html") and event["html"][0].count("word") >= 20:
            break
    person.act("stop", turns=[turn])
    page.upstream.pieces = 1000
    assert spent(page) == [5], "each piece of text is a token, where the API did not say yet"
    assert "all the text" in person.ask(**CHAT)["error"]
    assert "all the text" in person.act("retry", turn=turn)["error"]


def test_a_question_that_moderation_stops_counts(open_page) -> None:
    page = open_page(TWO, moderation="lexicon", limits=PageLimits(answers_per_minute=2))
    person = Person(page.url)
    for _ in range(2):
        assert "was not sent" in person.ask(BAD, **CHAT)["error"]
    assert TOO_MANY in person.ask(BAD, **CHAT)["error"]


def test_nothing_is_kept_of_who_has_not_agreed_to_the_terms(open_page) -> None:
    page = open_page(TWO, moderation="lexicon", terms="Be kind.")
    assert "terms" in Person(page.url).ask(BAD, **CHAT)["error"]
    database = Database(page.config.database_url)
    with database.read() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Conversation)) == 0
        assert session.scalar(sa.select(sa.func.count()).select_from(Visitor)) == 0
    database.close()


def test_limits_hold_for_all_visitors_together(open_page) -> None:
    page = open_page(TWO, limits=PageLimits(all_answers_per_hour=3))
    assert ["error" in Person(page.url).ask(**CHAT) for _ in range(4)] == [False] * 3 + [True]


def test_all_visitors_together_have_so_many_answers_at_a_time(open_page) -> None:
    page = open_page(TWO, limits=PageLimits(all_running_answers=2))
    page.upstream.pieces = 0
    first = [Person(page.url).ask(**CHAT) for _ in range(2)]
    assert not any("error" in one for one in first)
    assert "Too many visitors" in Person(page.url).ask(**CHAT)["error"]
    page.upstream.pieces = 1000


def test_all_visitors_together_have_so_much_text_a_day(open_page) -> None:
    page = open_page(TWO, limits=PageLimits(all_tokens_per_day=50))
    person = Person(page.url)
    person.wait(person.ask(**CHAT))
    assert "This page has given all" in Person(page.url).ask(**CHAT)["error"]


def test_all_visitors_together_have_so_many_votes_an_hour(open_page) -> None:
    page = open_page(TWO, limits=PageLimits(all_votes_per_hour=1))
    said = []
    for _ in range(2):
        person = Person(page.url)
        battle = person.wait(person.ask())
        said.append(person.act("vote", battle=battle["id"], verdict="tie"))
        # Saying the same again is no vote more: its answer may be lost on the way.
        assert person.act("vote", battle=battle["id"], verdict="tie").keys() == said[-1].keys()
    assert said[0]["verdict"] == "tie" and "no more votes" in said[1]["error"]


def test_asking_in_parallel_passes_no_limit(open_page, database_url: str) -> None:
    limits = PageLimits(answers_per_minute=3, running_answers=0)
    page = open_page(TWO, database_url=database_url, limits=limits)
    person = Person(page.url)
    said = together(*[lambda: person.ask(**CHAT)] * 8)
    assert sum("error" not in one for one in said) == 3
    assert all(TOO_MANY in one["error"] for one in said if "error" in one)


@pytest.mark.parametrize(
    "limit", ["address_answers_per_hour", "all_answers_per_hour", "all_running_answers"]
)
def test_new_visitors_in_parallel_pass_no_limit(open_page, database_url: str, limit: str) -> None:
    page = open_page(TWO, database_url=database_url, limits=PageLimits(**{limit: 3}))
    page.upstream.pieces = 0
    asks = [partial(Person(page.url).ask, **CHAT) for _ in range(8)]
    assert sum("error" not in one for one in together(*asks)) == 3
    page.upstream.pieces = 1000


def test_votes_of_new_visitors_in_parallel_pass_no_limit(open_page, database_url: str) -> None:
    limits = PageLimits(all_votes_per_hour=1)
    page = open_page(TWO, database_url=database_url, limits=limits)
    votes = []
    for person in [Person(page.url) for _ in range(6)]:
        battle = person.wait(person.ask())["id"]
        votes.append(partial(person.act, "vote", battle=battle, verdict="tie"))
    assert sum("error" not in one for one in together(*votes)) == 1


async def test_what_no_limit_counts_is_forgotten_without_any_retention(tmp_path) -> None:
    import asyncio

    database = Database(f"sqlite:///{tmp_path}/page.db")
    with database.write() as session:
        session.add(Visitor(id="v", created_s=0.0, consented_s=None))
        session.flush()
        for name, age_s in (("old", 90_000), ("new", 80_000)):
            row = Request(id=name, visitor_id="v", address="", created_s=now_s() - age_s, tokens=0)
            session.add(row)
    task = asyncio.create_task(forget_hourly(database, days=0))
    left = ["old", "new"]
    async with asyncio.timeout(60):
        while left != ["new"]:
            await asyncio.sleep(0.02)
            with database.read() as session:
                left = list(session.scalars(sa.select(Request.id)))
    task.cancel()
    database.close()


@pytest.mark.parametrize(
    ("wait_s", "seconds", "told"), [(12.3, 13, "13 seconds"), (149.0, 149, "3 minutes")]
)
def test_nobody_is_told_to_come_too_early(
    monkeypatch: pytest.MonkeyPatch, wait_s: float, seconds: int, told: str
) -> None:
    monkeypatch.setattr(limits, "now_s", lambda: 1000.0)
    refusal = limits._until(1000.0 + wait_s, "Full.")
    assert refusal.retry_after_s == seconds and str(refusal).endswith(f"Try again in {told}.")
