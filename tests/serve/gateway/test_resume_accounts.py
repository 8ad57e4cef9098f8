"""What a stream that goes on costs, and whose it is."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from apps.serve.config import ApiKey, GatewayConfig, ModelConfig, Prices
from apps.serve.model.pool import Member, PoolEntry
from apps.serve.model.served import load_model
from apps.serve.replica.replica import ModelReplica
from apps.serve.replica.wire import ReplicaName
from tests.serve.api import Api
from tests.serve.asgi_client import AsgiClient
from tests.serve.replica.gateway import gateway_of
from tests.serve.scripted import ScriptedEngine

MADE_UP = "chatcmpl-6579aaaa" + "0" * 24 + ":0"
TEXT = "y" * 20
PROMPT = "x" * 300
PROMPT_TOKENS = 319
"""the template's included"""


class Charge(NamedTuple):
    tokens: int
    usd: float


class Metered(NamedTuple):
    """The API over a replica, and what its keys are charged."""

    api: Api
    engine: ScriptedEngine
    charges: list[Charge]

    async def chat(self, key: str, last: str = "", content: str = PROMPT, **fields) -> str:
        self.api.http.headers = {"authorization": f"Bearer {key}", "last-event-id": last}
        response = await self.api.chat(content, stream=True, **fields)
        assert response.status_code == 200, response.text
        return response.text

    def add_pool(self) -> None:
        """Of the one model."""
        entries = self.api.directory.entries
        pool = ModelConfig(name="pool", engine="pool", options={"members": [{"model": "scripted"}]})
        members = {"scripted": Member("scripted", entries["scripted"])}
        entries["pool"] = PoolEntry(config=pool, members=members)

    def charged(self) -> Charge:
        """Since it was last asked."""
        tokens, usd = (sum(values) for values in zip(*self.charges, strict=True))
        self.charges.clear()
        return Charge(tokens, round(usd, 6))


def api_key(name: str) -> ApiKey:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return ApiKey(name=name, sha256=digest, tokens_per_minute=10**7, usd_per_day=1000.0)


@pytest.fixture
async def metered(model_folder: Path, monkeypatch) -> AsyncIterator[Callable]:
    prices = Prices(input_usd_per_million_tokens=1000, output_usd_per_million_tokens=1000)
    served = load_model(ModelConfig(name="scripted", path=str(model_folder), prices=prices))
    ids = served.tokenizer.backend.encode(TEXT).ids
    exchanges = []

    async def make(step_s: float = 0.0) -> Metered:
        engine = ScriptedEngine(lambda request: ids, step_s)
        api, exchange = await gateway_of(ModelReplica(engine, ReplicaName("app", "one")), served)
        exchanges.append(exchange)
        api.settings = GatewayConfig(api_keys=(api_key("ali"), api_key("bea")))
        charges: list[Charge] = []

        def charge(key: ApiKey, tokens: int, usd: float, requests: int = 0) -> None:
            charges.append(Charge(tokens, usd))

        monkeypatch.setattr(api.limits._here, "charge", charge)
        return Metered(api, engine, charges)

    yield make
    for exchange in exchanges:
        await exchange.close()


def stream_of(text: str) -> str:
    (first, *_) = (line for line in text.split("\n") if line.startswith("id: "))
    return first.removeprefix("id: ").partition(":")[0]


def stream_that_runs(engine: ScriptedEngine) -> str:
    (request,) = engine.requests
    match = re.search("chatcmpl-[0-9a-f]+", request.id)
    assert match is not None
    return match[0]


def answer_of(text: str) -> str:
    lines = [line.removeprefix("data: ") for line in text.split("\n") if "data: {" in line]
    return "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines)


async def test_a_made_up_last_event_id_makes_nothing_free(metered) -> None:
    one = await metered()
    await one.chat("ali")
    plain = one.charged()
    assert plain == (PROMPT_TOKENS + 21, 0.34)
    await one.chat("ali", MADE_UP)
    assert one.charged() == plain


async def test_a_stream_that_goes_on_pays_for_what_is_new_and_gets_nothing_back(metered) -> None:
    one = await metered(step_s=0.01)
    asking = asyncio.create_task(one.chat("ali"))
    while one.engine.steps_of.total() < 8:
        await asyncio.sleep(0.002)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    stream = stream_that_runs(one.engine)
    paid = one.charged()
    assert PROMPT_TOKENS + 5 <= paid.tokens < PROMPT_TOKENS + 21
    rest = await one.chat("ali", f"{stream}:3")
    assert answer_of(rest) == TEXT[3:]
    num_new = len(one.engine.requests[-1].generated_ids)
    assert num_new >= 5, "it was not generated again"
    charge = one.charged()
    assert charge.usd == round((21 - num_new) / 1000, 6)
    assert charge.tokens == PROMPT_TOKENS + 21 - num_new, "the prompt's were taken at admission"


class SlowReader(AsgiClient):
    """Takes the first piece of a stream and no more."""

    def __init__(self, api: Api, **fields: object) -> None:
        messages = [{"role": "user", "content": PROMPT}]
        body = {"model": "scripted", "messages": messages, "stream": True, **fields}
        self._has_begun = False
        super().__init__(api, json.dumps(body).encode(), {"authorization": "Bearer ali"})

    async def _send(self, message: dict) -> None:
        if self._has_begun or message["type"] != "http.response.start":
            await asyncio.Event().wait()
        self._has_begun = True


@pytest.mark.parametrize("model", ["scripted", "pool"])
@pytest.mark.parametrize("n", [1, 3])
async def test_what_is_held_for_a_client_that_leaves_is_paid_for(
    metered, model: str, n: int
) -> None:
    """It reads nothing, while the whole answer is generated and waits for it here."""
    one = await metered()
    one.add_pool()
    reader = SlowReader(one.api, model=model, n=n)
    while one.engine.steps_of.total() < 21 * n:
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.05)  # over the wire
    reader.left.set()
    await reader.task
    assert one.charged() == (PROMPT_TOKENS + 21 * n, (PROMPT_TOKENS + 21 * n) / 1000)


@pytest.mark.parametrize("model", ["scripted", "pool"])
@pytest.mark.parametrize("fields", [{}, {"n": 3}, {"stream": False}])
async def test_a_prompt_that_a_replica_has_taken_in_is_paid_for_by_who_leaves_before_a_token(
    metered, model: str, fields: dict
) -> None:
    one = await metered(step_s=60)
    one.add_pool()
    reader = SlowReader(one.api, model=model, **fields)
    while len(one.engine.requests) < fields.get("n", 1):
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.05)
    reader.left.set()
    await reader.task
    assert one.charged() == (PROMPT_TOKENS, PROMPT_TOKENS / 1000)


async def test_who_leaves_before_a_prompt_s_log_probabilities_come_pays_for_the_prompt(
    metered,
) -> None:
    one = await metered(step_s=60)
    body = {"model": "scripted", "prompt": PROMPT, "echo": True, "logprobs": 1, "max_tokens": 0}
    reader = AsgiClient(
        one.api, json.dumps(body).encode(), {"authorization": "Bearer ali"}, "/v1/completions"
    )
    while not one.engine.requests:
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.05)
    reader.left.set()
    await reader.task
    assert one.charged() == (300, 0.3)


@pytest.mark.parametrize("model", ["scripted", "pool"])
async def test_a_prompt_that_waits_for_its_turn_costs_nothing(metered, model: str) -> None:
    one = await metered()
    one.add_pool()
    queue = one.api.directory.entries["scripted"].queue
    queue.places, queue.max_waiting = 1, 8
    queue.ask("other", 1.0, 1)
    reader = SlowReader(one.api, model=model)
    while not queue.num_waiting:
        await asyncio.sleep(0.002)
    reader.left.set()
    await reader.task
    assert one.charged().usd == 0 and not one.engine.requests


async def test_what_comes_behind_a_stop_string_is_not_paid_for_when_the_client_leaves(
    metered,
) -> None:
    one = await metered()
    reader = SlowReader(one.api, stop=["yyyyy"])
    while one.engine.steps_of.total() < 21:
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.05)
    reader.left.set()
    await reader.task
    assert one.charged().tokens == PROMPT_TOKENS + 5


async def test_a_stream_that_goes_on_gets_for_nothing_only_what_was_paid_for(metered) -> None:
    """What the first connection held when it was lost was paid for there."""
    one = await metered()
    reader = SlowReader(one.api)
    while one.engine.steps_of.total() < 21:
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.05)
    reader.left.set()
    await reader.task
    paid = one.charged().usd
    rest = await one.chat("ali", f"{stream_that_runs(one.engine)}:0")
    assert answer_of(rest) == TEXT
    assert paid + one.charged().usd == pytest.approx((PROMPT_TOKENS + 21) / 1000)


async def test_prompts_beside_one_that_was_kept_are_paid_for(metered) -> None:
    one = await metered()
    one.api.http.headers = {"authorization": "Bearer ali"}
    first = await one.api.complete("Once", stream=True, max_tokens=16)
    once = one.charged().usd
    prompts = ["Once", PROMPT, PROMPT]
    one.api.http.headers["last-event-id"] = f"{stream_of(first.text)}:0.0.0"
    assert (await one.api.complete(prompts, stream=True, max_tokens=16)).status_code == 200
    assert one.charged().usd == pytest.approx(2 * (300 + 16) / 1000)
    assert once == pytest.approx((4 + 16) / 1000)


async def test_a_key_neither_gets_nor_ends_the_stream_of_another(metered) -> None:
    one = await metered(step_s=0.02)
    asking = asyncio.create_task(one.chat("ali"))
    while one.engine.steps_of.total() < 5:
        await asyncio.sleep(0.002)
    stream = stream_that_runs(one.engine)
    for content in (PROMPT, "Something else"):
        taken = await one.chat("bea", f"{stream}:0", content)
        assert one.engine.requests[-1].generated_ids == ()
        assert answer_of(taken) == TEXT
    assert answer_of(await asking) == TEXT
    assert len(one.engine.requests) == 3
    assert one.engine.cancelled == []
