"""An OpenAI-compatible moderation endpoint reads questions and answers, or nothing passes."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from apps.common.errors import ConfigError
from apps.common.files.endpoints import EndpointSettings
from apps.serve.page.answers.moderation import QUESTION_UNREAD
from apps.serve.page.config import PageConfig, PageLimits
from apps.serve.page.store.database import Database
from apps.serve.page.store.tables import Conversation, Turn
from tests.serve.page.live import Live, Person

FORBIDDEN = "xyzzy"


class Guard:
    """A moderation API that flags one word."""

    def __init__(self) -> None:
        self.read: list[dict[str, str]] = []
        self.status = 200
        self.app = FastAPI()
        self.app.post("/v1/moderations")(self._moderate)

    async def _moderate(self, request: Request) -> Response:
        body = await request.json()
        self.read.append({**body, "key": request.headers.get("authorization", "")})
        flagged = FORBIDDEN in body["input"]
        result = {"flagged": flagged, "categories": {"magic": flagged, "violence": False}}
        return JSONResponse({"id": "1", "model": "m", "results": [result]}, self.status)


@pytest.fixture
def guard() -> Iterator[tuple[Guard, EndpointSettings]]:
    guard = Guard()
    with Live(guard.app) as live:
        url = f"{live.url}/v1"
        yield guard, EndpointSettings(base_url=url, model="guard", key_env="GUARD_KEY")


def kept(url: str) -> list[tuple[str, str, str, dict[str, object]]]:
    """(question, answer, status, flags) of every turn."""
    database = Database(url)
    with database.read() as session:
        rows = session.scalars(sa.select(Turn).order_by(Turn.created_s)).all()
    database.close()
    return [(turn.question, turn.answer, turn.status, turn.flags) for turn in rows]


def test_questions_and_answers_are_read_and_what_is_blocked_is_kept_with_its_reason(
    open_page, guard, monkeypatch
) -> None:
    reader, endpoint = guard
    monkeypatch.setenv("GUARD_KEY", "k-1")
    long = "well " * 100
    page = open_page(
        {"ash": lambda m: f"{long}{FORBIDDEN} {long}" * 3, "elm": lambda m: "fine"},
        moderation="endpoint",
        moderation_endpoint=endpoint,
    )
    page.upstream.piece_s = 0.02
    person = Person(page.url)
    chat = {"kind": "chat", "models": ["ash"]}
    assert "was not sent" in person.ask(f"Say {FORBIDDEN}", **chat)["error"]
    assert "was not sent" in person.ask("Hi", system=f"Be {FORBIDDEN}", **chat)["error"]
    assert page.upstream.requests == []
    turn = person.wait(person.ask("Why?", **chat))["turns"][0]
    assert turn["status"] == "blocked" and turn["html"] == [] and "stopped" in turn["error"]
    fine = person.wait(person.ask("And you?", kind="chat", models=["elm"]))["turns"][0]
    assert fine["status"] == "done"
    assert {call["key"] for call in reader.read} == {"Bearer k-1"}
    assert {call["model"] for call in reader.read} == {"guard"}
    first, second, blocked, _ = kept(page.config.database_url)
    assert first[0] == f"Say {FORBIDDEN}" and first[2:] == (
        "blocked",
        {"blocked": "endpoint:magic"},
    )
    assert second[0] == "Hi" and second[2] == "blocked"
    assert blocked[3]["blocked"] == "endpoint:magic"
    text = str(blocked[3]["blocked_text"])
    assert FORBIDDEN in text and len(text) < 1500, "it was stopped while it streamed"


def test_nothing_passes_while_the_endpoint_does_not_answer(open_page, guard) -> None:
    reader, endpoint = guard
    page = open_page(
        {"ash": lambda m: "one " * 300}, moderation="endpoint", moderation_endpoint=endpoint
    )
    person = Person(page.url)
    talk = person.wait(person.ask("Why?", kind="chat", models=["ash"]))
    assert talk["turns"][0]["status"] == "done"
    reader.status = 500
    assert person.ask("More?", kind="chat", to=talk["id"])["error"] == QUESTION_UNREAD
    assert len(page.upstream.requests) == 1
    reader.status = 200
    page.upstream.piece_s = 0.1
    talk = person.ask("More?", kind="chat", to=talk["id"])
    reader.status = 500
    turn = person.wait(talk)["turns"][1]
    assert (
        turn["status"] == "failed" and turn["html"] == [] and "cannot be checked" in turn["error"]
    )


def test_the_reason_of_a_blocked_question_names_its_system_message_too(open_page, guard) -> None:
    _, endpoint = guard
    page = open_page({"ash": lambda m: "x"}, moderation="endpoint", moderation_endpoint=endpoint)
    Person(page.url).ask("Hi", system=FORBIDDEN, kind="chat", models=["ash"])
    database = Database(page.config.database_url)
    with database.read() as session:
        settings = session.scalars(sa.select(Conversation.settings)).one()
    database.close()
    assert settings == {"system": FORBIDDEN}


def test_a_long_question_is_read_from_its_beginning(open_page, guard) -> None:
    _, endpoint = guard
    page = open_page({"ash": lambda m: "x"}, moderation="endpoint", moderation_endpoint=endpoint)
    question = f"{FORBIDDEN} {'well ' * 1500}"
    assert "not sent" in Person(page.url).ask(question, kind="chat", models=["ash"])["error"]
    assert not page.upstream.requests


def test_no_question_is_read_by_moderation_without_being_counted(open_page, guard) -> None:
    """Neither one that is sent again with another text, nor one that is refused afterwards."""
    reader, endpoint = guard
    limits = PageLimits(answers_per_minute=3, running_answers=0)
    settings = {"moderation": "endpoint", "moderation_endpoint": endpoint, "limits": limits}
    page = open_page({"ash": lambda m: "yes"}, **settings)
    person, id = Person(page.url), "0" * 32
    talk = person.wait(person.ask("Why?", kind="chat", models=["ash"], id=id))
    num_read = len(reader.read)
    for text in ("Why not?", f"Say {FORBIDDEN}"):
        again = person.ask(text, kind="chat", models=["ash"], id=id)
        assert again["turns"][0]["question"] == talk["turns"][0]["question"] == "Why?"
    assert len(reader.read) == num_read
    said = [person.ask("Why?", kind="chat", models=["nobody"])["error"] for _ in range(4)]
    assert ["not up" in one for one in said] == [True, True, False, False]
    assert len(reader.read) == num_read + 2


def test_a_blocked_question_that_is_sent_again_is_still_refused(open_page, guard) -> None:
    reader, endpoint = guard
    page = open_page({"ash": lambda m: "x"}, moderation="endpoint", moderation_endpoint=endpoint)
    person = Person(page.url)
    for text in (FORBIDDEN, "Hello"):
        assert "was not sent" in person.ask(text, kind="chat", models=["ash"], id="0" * 32)["error"]
    assert len(reader.read) == 1


def test_an_endpoint_and_its_kind_need_each_other() -> None:
    with pytest.raises(ConfigError, match="need each other"):
        PageConfig(moderation="endpoint")
    with pytest.raises(ConfigError, match="need each other"):
        PageConfig(moderation_endpoint=EndpointSettings(base_url="http://127.0.0.1:1/v1"))
