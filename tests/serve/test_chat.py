"""`python -m apps.serve chat`: at a terminal, and with a question from a file."""

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from apps.common.command import cli
from apps.common.errors import ConfigError
from apps.serve import chat as terminal
from apps.serve.__main__ import COMMANDS
from apps.serve.chat import ChatConfig
from apps.serve.client import Client
from apps.serve.join import find_model
from tests.serve.api import Api, LiveServer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def piped(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """`piped(url, question, *arguments)`: exit code, standard output and error."""

    def run(url: str, question: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(question))
        code = cli.run("apps.serve", COMMANDS, ["chat", url, *arguments])
        return code, *capsys.readouterr()

    return run


def asked(api: Api) -> list[str]:
    backend = api.model.tokenizer.backend
    return [
        backend.decode(one.prompt_ids, skip_special_tokens=False) for one in api.engine.requests
    ]


@pytest.fixture
def live(api_saying) -> Callable[[str], LiveServer]:
    return lambda says: LiveServer(api_saying(says))


def test_a_question_from_a_file_is_answered_with_nothing_but_the_answer(live, piped) -> None:
    with live("Good day. \x1b[2J\u009b1m\tÄ") as server:
        done = piped(f"{server.url}/v1/", "two\nlines\n", "--system", "Be kind.")
    assert done == (0, "Good day. [2J1m\tÄ\n", "")
    (prompt,) = asked(server.api)
    assert "system\nBe kind." in prompt and "user\ntwo\nlines<" in prompt


@pytest.mark.parametrize(
    ("question", "argv", "sentence"),
    [
        ("\udcff hi", (), "The question is no UTF-8 text"),
        ("hi", ("--system", "\udcff"), "--system is no UTF-8 text"),
        ("hi", ("--temperature", "nan"), "temperature is nan"),
        ("hi", ("--max-tokens", "-1"), "max_tokens is -1"),
    ],
)
def test_what_cannot_be_sent_is_told(live, piped, question: str, argv, sentence: str) -> None:
    with live("Yes.") as server:
        code, out, err = piped(server.url, question, *argv)
    assert (code, out) == (2, "") and sentence in err and not server.api.engine.requests


def test_a_model_is_named_by_its_alias_too(live, piped) -> None:
    with live("Yes.") as server:
        assert piped(server.url, "hi", "--model", "gpt-x") == (0, "Yes.\n", "")


@pytest.mark.parametrize(
    ("question", "arguments", "sentence"),
    [
        ("", (), "There is no question; write one to standard input."),
        ("hi", ("--model", "other"), "has the models scripted, not 'other'; choose one with"),
        ("hi", ("--temperature", "3"), "less than or equal to 2"),
        ("hi", ("--key-env", "NOT_SET_HERE"), "--key-env names NOT_SET_HERE, which is not set"),
    ],
)
def test_what_cannot_be_asked_is_told(
    live, piped, question: str, arguments: tuple[str, ...], sentence: str
) -> None:
    with live("x") as server:
        code, out, err = piped(server.url, question, *arguments)
    assert code in (1, 2) and out == ""
    assert sentence in err and len(err.splitlines()) == 1


def test_where_nobody_listens_that_is_told(piped) -> None:
    code, _, err = piped("http://127.0.0.1:9", "hi")
    assert code == 2 and "does not list models (ConnectError)" in err


def test_at_a_terminal_it_is_a_conversation_until_it_is_begun_anew(live) -> None:
    master, slave = pty.openpty()
    with live("I see.") as server:
        argv = [sys.executable, "-W", "ignore", "-m", "apps.serve", "chat", server.url]
        with subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT) as process:
            os.close(slave)
            for typed in ("first\n", "second\n", "/new\n", "third\n", "\x04"):
                _read_until(master, b"> ")
                os.write(master, typed.encode())
            assert process.wait(30) == 0
    os.close(master)
    first, second, third = asked(server.api)
    assert "first" not in third and "third" in third
    assert second.startswith(f"{first}I see.") and "second" in second


def _read_until(terminal: int, end: bytes) -> None:
    seen = b""
    while end not in seen:
        seen += os.read(terminal, 1024)


def test_what_came_of_an_answer_that_was_stopped_is_kept(live) -> None:
    with live("A long answer.") as server, Client([f"{server.url}/v1"]) as client:
        talk = terminal._Talk(client, "scripted", ChatConfig(url=server.url))
        answer = talk.answer("first")
        begun = next(answer)
        answer.close()
        "".join(talk.answer("second"))
    assert f"assistant\n{begun}<" in asked(server.api)[1]


@pytest.mark.parametrize("wanted", ["", "vicuna"])
def test_a_service_whose_models_are_starting_says_so(wanted) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"data": []}))
    with (
        httpx.Client(transport=transport) as http,
        pytest.raises(ConfigError, match="has no model that is up yet; try again when"),
    ):
        find_model(http, "http://127.0.0.1:8000/v1", "", wanted, "")
