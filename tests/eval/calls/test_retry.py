"""One request until it has an answer, for questions and answers."""

import asyncio
import time
from collections.abc import Callable

import pytest
from aiohttp import web

from apps.common.command.events import Reporter
from apps.eval.calls.client import Endpoint, connect
from apps.eval.calls.failure import CallFailure
from apps.eval.calls.outage import FAILURES_TO_OPEN
from apps.eval.calls.reply import Reply
from apps.eval.calls.retry import Asker, Gates
from tests.eval.scripted_judge import Script, error

ASKED = [{"role": "user", "content": "Hi"}]


async def ask(
    url: str,
    max_attempts: int,
    model: str = "m",
    gates: Gates | None = None,
    max_refused_s: float = 600.0,
) -> Reply:
    endpoint = Endpoint(model=model, base_url=url, api_key=None, timeout_s=10)
    with Reporter("json").progress("ask", total=1) as bar:
        async with connect(endpoint) as client:
            asker = Asker(client, 4, max_attempts, bar, {} if gates is None else gates)
            asker._refused_rate.max_s = max_refused_s
            return await asker.ask(ASKED, {"max_tokens": 8})


def banned(pause_s: float) -> Callable[[web.Request, dict], web.Response | None]:
    """Refuses what comes before the pause that it asks for has passed, and asks for another."""
    until_s = [float("inf")]

    def handle(request: web.Request, body: dict) -> web.Response | None:
        now_s = time.monotonic()
        if now_s >= until_s[0]:
            return None
        until_s[0] = now_s + pause_s
        return error(429, "rate_limit_exceeded", {"Retry-After": str(pause_s)})

    return handle


async def test_no_request_comes_before_the_pause_that_was_asked_for(serve) -> None:
    server = serve(Script(handle=banned(0.5)))
    assert (await ask(server.url, max_attempts=2)).text
    assert server.requests.total() == 2


async def test_a_refusal_for_the_rate_is_no_try(serve) -> None:
    def slow(request: web.Request, body: dict) -> web.Response | None:
        is_refused = server.requests.total() < 4
        return error(429, None, {"Retry-After": "0.01"}) if is_refused else None

    server = serve(Script(handle=slow))
    assert (await ask(server.url, max_attempts=1)).text


async def test_a_model_at_its_own_limit_gives_up_while_another_of_its_account_answers(
    serve,
) -> None:
    """As at a daily limit of one model: the gate, which both share, sees no outage."""

    def spent(request: web.Request, body: dict) -> web.Response | None:
        is_spent = body["model"] == "spent"
        return error(429, None, {"Retry-After": "0.01"}) if is_spent else None

    server, gates = serve(Script(handle=spent)), Gates()
    assert (await ask(server.url, 1, "fine", gates)).text
    async with asyncio.timeout(60):
        with pytest.raises(CallFailure, match="spent has answered nothing"):
            await ask(server.url, 1, "spent", gates, max_refused_s=0.0)
    assert server.requests.total() == 1 + FAILURES_TO_OPEN
