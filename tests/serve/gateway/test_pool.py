"""A pool over servers in processes of their own, which are killed while they answer."""

import asyncio
import contextlib
import dataclasses
import json
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from apps.serve.config import Limits, ModelConfig, Prices
from apps.serve.engine.remote import RemoteEngine
from apps.serve.model.entry import Entry, RemoteEntry
from apps.serve.model.pool import FIRST_PAUSE_S, Health, Member, PoolEntry, watch_members
from tests.serve.api import Api, EngineBackend, LiveServer, events
from tests.serve.elsewhere import Elsewhere, elsewhere
from tests.serve.page.live import Live
from tests.serve.scripted import going_on

TEXT = "One after another they all say the same, in every place, whoever begins."


class Pooled:
    """An API with the model `pool`; its members are added by the test."""

    def __init__(self, near: Api, folder: Path, stack: ExitStack) -> None:
        self.near = near
        self._folder, self._stack = folder, stack
        config = ModelConfig(
            name="pool",
            engine="pool",
            options={"joinable": True},
            limits=Limits(queue_timeout_s=5),
        )
        self.entry = PoolEntry(config=config, members={})
        near.directory.entries["pool"] = self.entry

    async def add(self, name: str, far: Elsewhere | None = None, **settings) -> Elsewhere:
        if far is None:
            begin = elsewhere(self._folder, TEXT)
            far = await asyncio.to_thread(self._stack.enter_context, begin)
        await self.reach(name, far.url, health_url=f"{far.url}/health", **settings)
        return far

    async def reach(
        self, name: str, url: str, weight: float = 1.0, last: bool = False, **options
    ) -> Member:
        prices = options.pop("prices", Prices())
        options = {"base_url": f"{url}/v1", "model": "scripted", "continues": True, **options}
        config = ModelConfig(name=name, engine="remote", options=options, prices=prices)
        engine = RemoteEngine(config.engine_config(""))
        await engine.start()
        member = Member(name, RemoteEntry(config=config, engine=engine), weight, last)
        self.entry.members[name] = member
        return member

    async def add_two(self, **settings) -> dict[str, Elsewhere]:
        return dict(
            zip("ab", await asyncio.gather(*(self.add(n, **settings) for n in "ab")), strict=True)
        )

    def add_here(self, name: str, prices: Prices | None = None) -> Member:
        model = self.near.model
        config = dataclasses.replace(model.config, prices=prices or Prices())
        backend = EngineBackend(going_on(model, TEXT, 0.0))
        entry = Entry(model=dataclasses.replace(model, config=config), backend=backend)
        self.entry.members[name] = Member(name, entry)
        return self.entry.members[name]

    async def metric(self, name: str) -> float:
        lines = (await self.near.http.get("/metrics")).text.splitlines()
        found = [line for line in lines if line.startswith(f"{name}{{") and 'model="pool"' in line]
        return sum(float(line.rpartition(" ")[2]) for line in found)


async def alive(entry: Entry) -> Health:
    return "well"


@pytest.fixture
async def pool(api_saying: Callable[..., Api], model_folder: Path) -> AsyncIterator[Pooled]:
    with ExitStack() as stack:
        pooled = Pooled(api_saying("unused"), model_folder, stack)
        watching = asyncio.create_task(watch_members(lambda: [pooled.entry], alive))
        yield pooled
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        for engine in pooled.entry.engines:
            await engine.close()


def busiest(pool: Pooled, servers: dict[str, Elsewhere]) -> Elsewhere:
    name = max(servers, key=lambda name: pool.entry.members[name].running)
    assert pool.entry.members[name].running
    return servers[name]


async def disturbed(pool: Pooled, blow: Callable[[], None], **fields: object) -> list[dict]:
    """The events of a stream during which that happens."""
    asking = asyncio.create_task(pool.near.chat(model="pool", stream=True, **fields))
    await asyncio.sleep(0.5)
    assert not asking.done()
    blow()
    return events(await asking)


def texts(chunks: list[dict], num: int = 1) -> list[str]:
    pieces = [choice for chunk in chunks for choice in chunk["choices"]]
    return [
        "".join(p["delta"].get("content") or "" for p in pieces if p["index"] == i)
        for i in range(num)
    ]


async def test_a_stream_goes_on_elsewhere_when_its_server_is_killed(pool: Pooled) -> None:
    servers = await pool.add_two()
    chunks = await disturbed(pool, lambda: busiest(pool, servers).signal(signal.SIGKILL))
    assert texts(chunks) == [TEXT]
    pieces = [choice for chunk in chunks for choice in chunk["choices"]]
    assert sum("role" in p["delta"] for p in pieces) == 1
    assert [p["finish_reason"] for p in pieces if p["finish_reason"]] == ["stop"]
    assert len({chunk["id"] for chunk in chunks}) == 1 and {c["model"] for c in chunks} == {"pool"}


async def test_all_choices_of_a_stream_go_on(pool: Pooled) -> None:
    servers = await pool.add_two()
    chunks = await disturbed(
        pool,
        lambda: busiest(pool, servers).signal(signal.SIGKILL),
        n=3,
        stream_options={"include_usage": True},
    )
    assert texts(chunks, 3) == [TEXT] * 3
    assert chunks[-1]["usage"]["completion_tokens"] >= 3 * len(TEXT)


async def test_a_stream_moves_from_here_to_elsewhere_and_back(pool: Pooled) -> None:
    here = pool.add_here("here")
    here.back_end.backend._engine.step_s = 0.02
    far = await pool.add("far", weight=0.01)
    chunks = await disturbed(pool, here.gone.set)
    assert texts(chunks) == [TEXT]
    here.gone.clear()
    far.signal(signal.SIGKILL)
    await asyncio.sleep(1)
    assert texts(events(await pool.near.chat(model="pool", stream=True))) == [TEXT]


async def test_a_whole_answer_is_asked_for_again(pool: Pooled) -> None:
    servers = await pool.add_two()
    asking = asyncio.create_task(pool.near.chat(model="pool"))
    await asyncio.sleep(0.5)
    busiest(pool, servers).signal(signal.SIGKILL)
    body = (await asking).json()
    assert body["choices"][0]["message"]["content"] == TEXT and body["model"] == "pool"
    assert body["usage"]["completion_tokens"] == len(TEXT) + 1


@pytest.mark.parametrize("echo", [True, False])
async def test_a_completion_goes_on_from_its_text(pool: Pooled, echo: bool) -> None:
    here = pool.add_here("here")
    here.back_end.backend._engine.step_s = 0.02
    await pool.add("far", weight=0.01, continues=False)
    prompt = "<|im_start|>assistant\n"
    body = {"model": "pool", "prompt": prompt, "stream": True, "max_tokens": 400}
    more = {"logprobs": 0, "echo": echo}
    asking = asyncio.create_task(pool.near.http.post("/v1/completions", json={**body, **more}))
    await asyncio.sleep(0.5)
    here.gone.set()
    choices = [chunk["choices"][0] for chunk in events(await asking)]
    assert "".join(choice["text"] for choice in choices) == prompt * echo + TEXT
    places = [at for choice in choices for at in choice["logprobs"]["text_offset"]]
    begin = len(prompt) * echo
    assert [at for at in places if at >= begin] == list(range(begin, begin + len(TEXT)))


async def test_a_stream_that_can_go_on_nowhere_says_so(pool: Pooled) -> None:
    servers = await pool.add_two(continues=False)
    chunks = await disturbed(pool, lambda: busiest(pool, servers).signal(signal.SIGKILL))
    assert chunks[-1]["error"]["code"] == "stream_lost"
    assert TEXT.startswith(texts(chunks[:-1])[0])


async def test_a_format_or_tools_cannot_go_on_in_the_middle(pool: Pooled) -> None:
    servers = await pool.add_two()
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    chunks = await disturbed(
        pool, lambda: busiest(pool, servers).signal(signal.SIGKILL), tools=[tool]
    )
    assert chunks[-1]["error"]["code"] == "stream_lost"


async def test_a_dead_server_gets_nothing_after_a_second_and_comes_back(pool: Pooled) -> None:
    far = await pool.add("a")
    await pool.reach("b", far.url)
    far.signal(signal.SIGKILL)
    await asyncio.sleep(1)
    assert not pool.entry.members["a"].is_up
    assert [m.name for m in [pool.entry.choose((), False)]] == ["b"], "nobody asks how b is"
    refused = await pool.near.chat(model="pool")
    assert refused.status_code == 502 and refused.json()["error"]["message"]


async def test_a_frozen_server_gets_nothing_new(pool: Pooled) -> None:
    far = await pool.add("a")
    await asyncio.sleep(0.5)
    far.signal(signal.SIGSTOP)
    began_s = time.monotonic()
    while pool.entry.members["a"].is_up:
        await asyncio.sleep(0.02)
    assert time.monotonic() - began_s < 3
    far.signal(signal.SIGCONT)
    while not pool.entry.members["a"].is_up:
        await asyncio.sleep(0.02)


async def test_the_last_resort_is_asked_only_when_no_other_is_up(pool: Pooled) -> None:
    here = pool.add_here("here")
    usd = Prices(output_usd_per_million_tokens=1e6)
    await pool.add("gpt", last=True, prices=usd)
    assert (await pool.near.chat(model="pool")).status_code == 200
    assert await pool.metric("cria_cost_usd_total") == 0
    here.gone.set()
    assert (await pool.near.chat(model="pool")).status_code == 200
    assert await pool.metric("cria_cost_usd_total") == len(TEXT) + 1
    assert await pool.metric("cria_requests_in_flight") == 0


async def test_a_full_member_is_passed_over_and_all_full_is_a_429(
    pool: Pooled, api_saying: Callable[..., Api]
) -> None:
    full = api_saying("x", max_waiting=0)
    with LiveServer(full) as server:
        await pool.reach("full", server.url, weight=100)
        answer = await pool.near.chat(model="pool")
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        pool.add_here("here")
        assert (await pool.near.chat(model="pool")).status_code == 200


async def test_a_member_that_takes_nothing_has_read_nothing(pool: Pooled) -> None:
    pool.add_here("here")
    await pool.near.chat(model="pool")
    alone = await pool.metric("cria_prompt_tokens_total")
    full = pool.add_here("full")
    full.weight, full.back_end.queue.places, full.back_end.queue.max_waiting = 100.0, 0, 0
    assert (await pool.near.chat(model="pool")).status_code == 200
    assert await pool.metric("cria_prompt_tokens_total") == 2 * alone > 0


async def test_a_members_limits_are_its_own(pool: Pooled) -> None:
    strict = await pool.reach("strict", "http://127.0.0.1:9", weight=100.0)
    config = dataclasses.replace(strict.back_end.config, limits=Limits(max_output_tokens=8))
    strict.back_end = dataclasses.replace(strict.back_end, config=config)
    pool.add_here("here")
    answer = await pool.near.chat(model="pool", max_tokens=300)
    assert answer.json()["choices"][0]["message"]["content"] == TEXT
    assert strict.is_up


async def test_what_is_wrong_for_one_member_is_not_tried_on_others(pool: Pooled) -> None:
    here = pool.add_here("here")
    await pool.add("far", weight=0.01)
    answer = await pool.near.chat("long " * 200, model="pool")
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    here.gone.set()
    answer = await pool.near.chat("long " * 200, model="pool")
    assert answer.json()["error"]["code"] == "context_length_exceeded"


async def test_requests_are_shared_by_weight(pool: Pooled) -> None:
    for name, weight in (("a", 3.0), ("b", 1.0)):
        pool.add_here(name).weight = weight
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            member = pool.entry.choose((), False)
            assert member is not None
            member.running += 1
            stack.callback(setattr, member, "running", 0)
        assert [pool.entry.members[name].running for name in "ab"] == [6, 2]


def breaking_off(*choices: dict[str, object]) -> FastAPI:
    """A server whose streams say this and end without a farewell."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def chat_completions() -> StreamingResponse:
        said = (f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in choices)
        return StreamingResponse(iter([*said]), media_type="text/event-stream")

    return app


async def test_an_answer_that_is_whole_is_not_continued(pool: Pooled) -> None:
    """Its server broke off behind the reason for the end, before the count of tokens."""
    said = {"index": 0, "delta": {"role": "assistant", "content": "Done."}, "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    with Live(breaking_off(said, end)) as live:
        await pool.reach("brief", live.url)
        pool.add_here("here").is_last_resort = True
        chunks = events(await pool.near.chat(model="pool", stream=True))
    assert texts(chunks) == ["Done."] and not any("error" in chunk for chunk in chunks)


@pytest.mark.parametrize("said", [{}, {"usage": {"prompt_tokens": 99, "completion_tokens": 9}}])
async def test_an_answer_without_choices_costs_nothing(pool: Pooled, said: dict) -> None:
    pool.add_here("here")
    await pool.near.chat(model="pool")
    alone = await pool.metric("cria_prompt_tokens_total")
    odd = FastAPI()

    @odd.post("/v1/chat/completions")
    async def chat_completions() -> dict[str, object]:
        return said

    with Live(odd) as live:
        await pool.reach("odd", live.url, weight=100.0)
        assert (await pool.near.chat(model="pool")).status_code == 200
    assert not pool.entry.members["odd"].is_up, "it was asked"
    assert await pool.metric("cria_prompt_tokens_total") == 2 * alone > 0
    assert await pool.metric("cria_completion_tokens_total") == 2 * (len(TEXT) + 1)


async def test_one_loss_that_takes_many_requests_is_one_failure(pool: Pooled) -> None:
    member = pool.add_here("here")
    for _ in range(10):
        member.failed()
    await asyncio.sleep(FIRST_PAUSE_S + 0.1)
    assert member.is_up


async def test_who_leaves_early_has_used_the_prompt(pool: Pooled) -> None:
    here = pool.add_here("here")
    here.back_end.backend._engine.step_s = 0.02
    body = {"model": "pool", "messages": [{"role": "user", "content": "x" * 300}], "stream": True}
    async with pool.near.http.stream("POST", "/v1/chat/completions", json=body) as response:
        async for _ in response.aiter_lines():
            break
    for _ in range(100):
        if await pool.metric("cria_prompt_tokens_total") > 0:
            break
        await asyncio.sleep(0.05)
    assert await pool.metric("cria_prompt_tokens_total") > 250


async def test_requests_that_wait_for_a_pool_are_counted_once_each(pool: Pooled) -> None:
    queue = pool.add_here("near").back_end.queue
    queue.places, queue.max_waiting = 1, 8
    other = queue.ask("other", 1.0, 1)
    asking = [asyncio.create_task(pool.near.chat(model="pool", n=2)) for _ in range(2)]
    while queue.num_waiting < 2:
        await asyncio.sleep(0.01)
    assert await pool.metric("cria_requests_waiting") == 2
    queue.leave(other)
    assert [response.status_code for response in await asyncio.gather(*asking)] == [200, 200]
    assert await pool.metric("cria_requests_waiting") == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_what_the_asker_began_goes_only_to_who_goes_on_with_it(
    pool: Pooled, stream: bool
) -> None:
    far = await pool.add("one", continues=False)
    begun = {"role": "assistant", "content": TEXT[:20]}
    messages = [{"role": "user", "content": "Go on."}, begun]
    body = {"model": "pool", "messages": messages, "continue_final_message": True, "stream": stream}
    refused = await pool.near.http.post("/v1/chat/completions", json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "continue_final_message"
    await pool.add("two", far, continues=True)
    assert (await pool.near.http.post("/v1/chat/completions", json=body)).status_code == 200
