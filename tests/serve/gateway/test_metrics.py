"""What is counted of a request, whatever its end."""

import asyncio
import random
import re
from pathlib import Path

import httpx
import pytest

from apps.serve import errors
from apps.serve.config import ModelConfig, Prices
from apps.serve.errors import ApiError
from apps.serve.gateway.metrics import render
from apps.serve.model.served import load_model
from tests.serve.api import Api, LiveServer
from tests.serve.asgi_client import AsgiClient
from tests.serve.scripted import ScriptedEngine

CHAT = b'{"model": "scripted", "messages": [{"role": "user", "content": "hi"}], "stream": true}'


async def samples(api: Api) -> dict[str, float]:
    text = (await api.http.get("/metrics")).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def total(values: dict[str, float], name: str) -> float:
    return sum(value for sample, value in values.items() if sample.partition("{")[0] == name)


async def test_a_prompt_that_was_refused_costs_nothing(api_saying) -> None:
    api = api_saying("Hello")
    refused = api_saying("Hello", max_waiting=0)
    assert (await api.chat()).status_code == 200
    assert (await refused.chat()).status_code == 429
    name = 'cria_prompt_tokens_total{key="",model="scripted"}'
    assert (await samples(api))[name] > 0
    assert (await samples(refused))[name] == 0


async def test_a_client_that_leaves_before_its_body_is_whole_is_no_failure_of_the_server(
    api_saying, caplog: pytest.LogCaptureFixture
) -> None:
    api = api_saying("Hello")
    with LiveServer(api) as server:
        url = httpx.URL(server.url)
        _, writer = await asyncio.open_connection(url.host, url.port)
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: 999\r\n\r\n{{".encode())
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.close()
        async with asyncio.timeout(5):
            while not total(counted := await samples(api), "cria_requests_total"):
                await asyncio.sleep(0.02)
    assert counted['cria_requests_total{endpoint="chat",key="",model="",status="499"}'] == 1
    assert counted['cria_failures_total{cause="client_left",model=""}'] == 1
    assert "Traceback" not in caplog.text


async def test_a_failure_of_the_server_is_counted_as_one(api_saying) -> None:
    api = api_saying("Hello")

    async def broken(*_: object) -> None:
        raise KeyError

    api.engine.submit = broken
    assert (await api.chat()).status_code == 500
    finished = {name for name in await samples(api) if name.startswith("cria_requests_total")}
    assert finished == {'cria_requests_total{endpoint="chat",key="",model="scripted",status="500"}'}


@pytest.mark.parametrize(
    ("path", "body", "status", "endpoint"),
    [
        ("/v1/chat/completions", b"{", 400, "chat"),
        ("/v1/chat/completions", CHAT.replace(b"scripted", b"nobody"), 404, "chat"),
        ("/v1/completions", b" " * (5 << 20), 413, "completions"),
        ("/v1/nothing", b"{}", 404, "other"),
    ],
)
async def test_a_refusal_is_counted_with_its_status(
    api_saying, path: str, body: bytes, status: int, endpoint: str
) -> None:
    api = api_saying("Hello")
    headers = {"content-type": "application/json"}
    assert (await api.http.post(path, content=body, headers=headers)).status_code == status
    name = f'cria_requests_total{{endpoint="{endpoint}",key="",model="",status="{status}"}}'
    assert (await samples(api))[name] == 1


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_request_that_is_cancelled_twice_at_any_await_is_counted_once(api_saying) -> None:
    api = api_saying("Hello there")
    ends = [(first, between) for first in range(0, 60, 2) for between in range(5)]
    for first, between in ends:
        client = AsgiClient(api, CHAT)
        await turns(first)
        client.task.cancel()
        await turns(between)
        client.task.cancel()
        await asyncio.gather(client.task, return_exceptions=True)
    await asyncio.sleep(0.05)
    values = await samples(api)
    begun = len(ends) - 5  # the five that were cancelled before they began were never requests
    assert total(values, "cria_requests_total") == begun
    assert total(values, "cria_requests_in_flight") == 0
    assert not api.engine.running


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"model": "nobody"}, "model_not_found"),
        ({"temperature": 9}, "invalid_value"),
    ],
)
async def test_a_failure_is_counted_under_its_cause(
    api_saying, fields: dict[str, object], cause: str
) -> None:
    api = api_saying("Hello")
    assert (await api.chat(**fields)).status_code >= 400
    failed = {n: v for n, v in (await samples(api)).items() if n.startswith("cria_failures")}
    assert [(f'cause="{cause}"' in name, value) for name, value in failed.items()] == [(True, 1.0)]


async def test_an_answer_is_no_failure_and_a_full_queue_is_one(api_saying) -> None:
    well, full = api_saying("Hello"), api_saying("Hello", max_waiting=0)
    await well.chat()
    await full.chat()
    assert total(await samples(well), "cria_failures_total") == 0
    assert (await samples(full))['cria_failures_total{cause="overloaded",model="scripted"}'] == 1


def test_every_code_of_our_own_is_a_cause() -> None:
    """A code that another server chose is none: there may be any number of them."""
    root = Path(errors.__file__).parent
    sources = "".join(path.read_text() for path in root.rglob("*.py"))
    assert set(re.findall(r'\bcode="(\w+)"', sources)) <= errors.CAUSES
    limiter = (root / "admission/limiter.py").read_text()
    assert len(set(re.findall(r'(?:Refusal|_wait)\(\s*"(\w+)"', limiter)) & errors.CAUSES) == 4
    assert ApiError(400, "no", code="their_own").cause == "invalid_request_error"


async def test_requests_that_wait_for_their_turn_are_counted(api_saying) -> None:
    api = api_saying("Hello there, and so on and so forth", step_s=0.005)
    queue = api.directory.entries["scripted"].queue
    queue.places, queue.max_waiting = 1, 2
    seen = [total(await samples(api), "cria_requests_waiting")]  # the first look imports much
    clients = [AsgiClient(api, CHAT) for _ in range(3)]
    while not clients[0].task.done():
        seen.append(total(await samples(api), "cria_requests_waiting"))
        await asyncio.sleep(0.001)
    assert max(seen) == 2
    await asyncio.gather(*(client.task for client in clients))
    assert total(await samples(api), "cria_requests_waiting") == 0


async def test_a_client_that_leaves_is_counted_as_such_with_the_tokens_it_got(api_saying) -> None:
    api = api_saying("Hello there, and so on and so forth", step_s=0.002)
    client = AsgiClient(api, CHAT)
    while client.text.count(b"data:") < 6:
        await asyncio.sleep(0.001)
    client.left.set()
    await client.task
    values = await samples(api)
    assert values['cria_requests_total{endpoint="chat",key="",model="scripted",status="499"}'] == 1
    assert values['cria_failures_total{cause="client_left",model="scripted"}'] == 1
    assert 5 <= total(values, "cria_completion_tokens_total") < 20


async def test_dollars_are_the_tokens_at_their_prices(model_folder) -> None:
    prices = Prices(input_usd_per_million_tokens=2.0, output_usd_per_million_tokens=6.0)
    model = load_model(ModelConfig(name="scripted", path=str(model_folder), prices=prices))
    api = Api(model, ScriptedEngine(lambda request: [70, 71, 72]))
    rng = random.Random(0)
    clients = [AsgiClient(api, CHAT) for _ in range(20)]
    for client in clients:
        await turns(rng.randrange(4))
        if rng.random() < 0.3:
            client.left.set()
    await asyncio.gather(*(client.task for client in clients))
    values = await samples(api)
    tokens = [total(values, f"cria_{kind}_tokens_total") for kind in ("prompt", "completion")]
    assert total(values, "cria_cost_usd_total") == pytest.approx(prices.usd(*map(int, tokens)))


def test_a_model_without_replicas_has_its_series_too() -> None:
    text = render([], {"sleeps": [], "runs": [{"steps_total": 3.0}]}, {"pool": 2})
    assert 'cria_replicas{model="sleeps"} 0.0' in text
    assert 'cria_engine_steps_total{model="runs"} 3.0' in text
    assert 'cria_pool_members{model="pool"} 2.0' in text
