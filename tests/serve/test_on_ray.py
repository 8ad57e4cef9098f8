"""The whole service on a real Ray: two models, gateway and page, in the session's one Serve."""

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import openai
import pytest

from apps.common.runtime import free_port
from apps.serve.config import GatewayConfig, ModelConfig, PageConfig, ServeConfig
from tests.serve.conftest import write_text_files

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    # Ray 2.60's own schemas, with the pydantic that goes with it.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`"),
]

CONTEXT = 16384  # so long that nobody is late to stop an answer
START_TIMEOUT_S = 240  # seven processes that import torch or gradio, on two cores that may be slow
QUESTION = [{"role": "user", "content": "Tell me something"}]


def write_model(folder: Path, seed: int) -> str:
    """A model whose likeliest token is never the end of turn: greedy answers are always long."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    write_text_files(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=262, hidden_size=64, intermediate_size=128, num_hidden_layers=8,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=CONTEXT,
        eos_token_id=1, bos_token_id=None, initializer_range=0.2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data[config.eos_token_id] = 0
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1]}))
    return str(folder)


class Service:
    """A running service and the settings it runs with."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self.url = f"http://127.0.0.1:{config.gateway.port}"
        self.client: openai.AsyncOpenAI

    def apply(self, config: ServeConfig) -> None:
        from apps.common.events import Reporter
        from apps.serve import deployment

        deployment.apply(config)
        deployment.wait_until_running(config, Reporter("json"), START_TIMEOUT_S)

    def metric(self, name: str, model: str) -> float:
        text = httpx.get(f"{self.url}/metrics", timeout=30).text
        wanted = f'{name}{{model="{model}"}} '
        return float(next(x for x in text.splitlines() if x.startswith(wanted)).split()[-1])

    async def text(self, model: str = "one", **fields: object) -> str:
        fields = {"temperature": 0, "max_tokens": 60, **fields}
        answer = await self.client.chat.completions.create(model=model, messages=QUESTION, **fields)
        return answer.choices[0].message.content

    async def streamed(self, model: str = "one", **fields: object) -> str:
        return "".join([piece async for piece in self.pieces(model, **fields)])

    async def pieces(self, model: str = "one", **fields: object):
        fields = {"temperature": 0, "max_tokens": 60, **fields}
        stream = await self.client.chat.completions.create(
            model=model, messages=QUESTION, stream=True, **fields
        )
        async with stream:
            async for chunk in stream:
                yield chunk.choices[0].delta.content or ""


@pytest.fixture(scope="session")
def running(ray_session, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    from ray import serve

    folder = tmp_path_factory.mktemp("models")
    models = tuple(
        ModelConfig(name=name, path=write_model(folder / name, seed))
        for seed, name in enumerate(("one", "two"))
    )
    config = ServeConfig(
        models=models,
        gateway=GatewayConfig(port=free_port()),
        page=PageConfig(votes_url=f"sqlite:///{folder}/votes.db", examples=("What is new?",)),
    )
    service = Service(config)
    service.apply(config)
    yield service
    serve.shutdown()


@pytest.fixture
async def service(running: Service) -> AsyncIterator[Service]:
    """The running service with a client of this test's event loop."""
    url = f"{running.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as running.client:
        yield running


async def test_a_stream_equals_the_whole_answer(service: Service) -> None:
    whole = await service.text()
    assert whole and whole == await service.streamed()
    assert whole != await service.text("two")


async def test_an_answer_does_not_depend_on_what_else_is_running(service: Service) -> None:
    fields = [{"seed": i, "temperature": 1.0, "max_tokens": 10 + 7 * i} for i in range(8)]
    alone = [await service.text(**one) for one in fields]
    together = await asyncio.gather(*(service.text(**one) for one in fields))
    assert list(together) == alone


async def test_a_json_schema_is_followed(service: Service) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = await service.text(response_format=shape, max_tokens=200)
    assert isinstance(json.loads(answer)["ok"], bool)


async def test_a_client_that_leaves_frees_its_slot(service: Service) -> None:
    running = "cria_engine_running_requests"
    pieces = service.pieces("two", max_tokens=CONTEXT - 100, extra_body={"ignore_eos": True})
    for _ in range(5):
        await anext(pieces)
    assert await asyncio.to_thread(service.metric, running, "two") == 1
    await pieces.aclose()
    deadline_s = time.monotonic() + 2
    while await asyncio.to_thread(service.metric, running, "two") and time.monotonic() < deadline_s:
        await asyncio.sleep(0.05)
    generated = "cria_engine_generated_tokens_total"
    before = await asyncio.to_thread(service.metric, generated, "two")
    await asyncio.sleep(0.3)
    assert await asyncio.to_thread(service.metric, generated, "two") == before


async def test_a_killed_replica_leaves_no_trace_in_a_stream(service: Service) -> None:
    import ray

    fields = {"max_tokens": 1500, "temperature": 1.0, "seed": 3, "extra_body": {"ignore_eos": True}}
    undisturbed = await service.text("two", **fields)
    pieces = service.pieces("two", **fields)
    text = "".join([await anext(pieces) for _ in range(20)])
    (replica,) = [
        actor["name"]
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if "model-two" in actor["name"]
    ]
    ray.kill(ray.get_actor(replica, namespace="serve"))
    text += "".join([piece async for piece in pieces])
    assert text == undisturbed


def test_the_service_is_ready_and_says_what_it_runs(running: Service) -> None:
    assert httpx.get(f"{running.url}/ready").json() == {
        "ready": True,
        "models": {"one": True, "two": True},
    }
    assert httpx.get(f"{running.url}/", follow_redirects=False).headers["location"] == "/ui/"


@pytest.mark.browser
def test_a_person_asks_regenerates_edits_and_stops_on_the_page(running: Service) -> None:
    from tests.serve.browser import Browser

    def answered() -> str:
        lengths = browser.watched(until=20)
        assert len(set(lengths)) > 2, "the answer did not grow while it came"
        return browser.text("#chat .bot.message")

    def generated() -> float:
        return running.metric("cria_engine_generated_tokens_total", "two")

    with contextlib.closing(Browser()) as browser:
        browser.open(f"{running.url}/ui/")
        browser.wait_until(lambda: browser.value("#model input") == "two")
        browser.click(".tabitem button.label-wrap")
        browser.set_number("Temperature", 0)
        browser.watch("#chat .bot.message")
        browser.type("#ask textarea", "What is new?\n")
        assert "What is new?" in browser.text("#chat .user.message")
        first = answered()

        before = generated()
        browser.watch("#chat .bot.message")
        browser.click("#chat button[aria-label=Retry]")
        browser.wait_until(lambda: generated() > before)
        assert answered() == first

        browser.click("#chat button[aria-label=Edit]")
        browser.type("#chat .user.message textarea", " And old?")
        browser.watch("#chat .bot.message")
        browser.click("#chat button[aria-label=Submit]")
        browser.wait_until(lambda: "What is new? And old?" in browser.text("#chat .user.message"))
        assert answered() != first
        assert len(browser.all("#chat .message-row")) == 2

        browser.set_number("Longest answer", CONTEXT)
        before = generated()
        browser.click("#chat button[aria-label=Retry]")
        browser.wait_for("#ask button.stop-button")
        browser.wait_until(lambda: bool(browser.text("#chat .bot.message")))
        browser.click("#ask button.stop-button")
        browser.wait_for("#ask button.submit-button")
        browser.wait_until(lambda: running.metric("cria_engine_running_requests", "two") == 0)
        assert generated() - before < CONTEXT - 200, "the answer came to its end"
        assert browser.text("#chat .bot.message")
        assert not browser.errors()


async def test_changing_one_model_leaves_the_streams_of_the_others_alone(service: Service) -> None:
    """Comes last, because it takes the second model away."""
    config = service.config
    long = {"max_tokens": 3000, "extra_body": {"ignore_eos": True}}
    expected = await service.text("one", **long)
    stream = asyncio.ensure_future(service.streamed("one", **long))
    await asyncio.sleep(0.1)
    renamed = dataclasses.replace(config.models[0], aliases=("first",))
    await asyncio.to_thread(service.apply, dataclasses.replace(config, models=(renamed,)))
    assert await stream == expected
    names = [model.id async for model in service.client.models.list()]
    assert names == ["one"]
    assert await service.text("first") == await service.text("one")
    with pytest.raises(openai.NotFoundError):
        await service.text("two")
