"""One request until it has an answer, for questions and answers."""

import time
from collections.abc import Callable

from aiohttp import web

from apps.common.command.events import Reporter
from apps.eval.calls.client import Endpoint, connect
from apps.eval.calls.reply import Reply
from apps.eval.calls.retry import Asker
from tests.eval.scripted_judge import Script, error

ASKED = [{"role": "user", "content": "Hi"}]


async def ask(url: str, max_attempts: int) -> Reply:
    endpoint = Endpoint(model="m", base_url=url, api_key=None, timeout_s=10)
    with Reporter("json").progress("ask", total=1) as bar:
        async with connect(endpoint) as client:
            asker = Asker(client, 4, max_attempts, bar, {})
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
