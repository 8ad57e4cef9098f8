"""A scripted endpoint that runs beside the test, in a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.eval.scripted_judge import Endpoint, Script, start


@pytest.fixture
def ray_address(ray_session, monkeypatch: pytest.MonkeyPatch) -> str:
    """Commands run by the test join the session's Ray instead of starting one."""
    monkeypatch.setenv("RAY_ADDRESS", ray_session.address)
    return ray_session.address


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Script], Endpoint]]:
    """serve(Script(...)) -> Endpoint, with OPENAI_BASE_URL pointing at the last one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runners = []

    def begin(script: Script) -> Endpoint:
        endpoint, runner = asyncio.run_coroutine_threadsafe(start(script), loop).result(10)
        runners.append(runner)
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
        monkeypatch.setenv("OPENAI_API_KEY", "test")
        return endpoint

    yield begin
    for runner in runners:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
