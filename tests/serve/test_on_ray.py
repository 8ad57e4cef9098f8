"""The whole service on a real Ray: two gateways, two models, the page."""

import asyncio
import contextlib
import json
import time
from typing import Any

import httpx
import pytest

from apps.serve.engine.llama.kv_cache import CHUNK
from apps.serve.gateway.api import VERSION
from tests.serve.service import CONTEXT, ON_RAY, QUESTION, Service, wait_until

pytestmark = ON_RAY


async def test_a_stream_equals_the_whole_answer(service: Service) -> None:
    whole = await service.text()
    assert whole and whole == await service.streamed()
    assert whole != await service.text("two")


async def test_an_answer_does_not_depend_on_what_else_is_running(service: Service) -> None:
    fields = [{"seed": i, "temperature": 1.0, "max_tokens": 10 + 7 * i} for i in range(8)]
    alone = [await service.text(**one) for one in fields]
    together = await asyncio.gather(*(service.text(**one) for one in fields))
    assert list(together) == alone


@pytest.mark.parametrize("model", ["one", "two"])
async def test_all_choices_of_an_answer_come_at_once(service: Service, model: str) -> None:
    """They are calls of one HTTP request, which Serve must not take for one call."""
    fields: Any = {"model": model, "n": 5, "seed": 3, "temperature": 1.0, "max_tokens": 20}
    whole = await service.client.chat.completions.create(messages=QUESTION, timeout=60, **fields)
    texts = [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 5
    streamed = [""] * 5
    async for chunk in await service.client.chat.completions.create(
        messages=QUESTION, stream=True, timeout=60, **fields
    ):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


async def test_all_prompts_of_a_request_are_answered(service: Service) -> None:
    fields: Any = {"model": "two", "seed": 3, "max_tokens": 20, "timeout": 60}
    both = await service.client.completions.create(prompt=["A tree", "A stone"], n=2, **fields)
    best = await service.client.completions.create(prompt="A tree", best_of=3, **fields)
    assert [len(one.choices) for one in (both, best)] == [4, 1]
    assert all(choice.text for choice in (*both.choices, *best.choices))


async def test_a_later_turn_finds_the_earlier_ones_computed_whichever_gateway_has_it(
    service: Service,
) -> None:
    async def chat(number: int) -> None:
        messages: list[Any] = []
        known_tokens = 0
        for turn in range(4):
            text = f"Question {turn} of {number}: " + "why and how " * 40
            messages.append({"role": "user", "content": text})
            said = await service.client.chat.completions.create(
                model="two", messages=messages, max_tokens=8, temperature=0
            )
            messages.append({"role": "assistant", "content": said.choices[0].message.content})
            # Whole chunks are kept, and the answer's tokens may differ when they are read again.
            assert said.usage.prompt_tokens_details.cached_tokens >= known_tokens - 2 * CHUNK
            known_tokens = said.usage.prompt_tokens

    await asyncio.gather(*map(chat, range(4)))


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


def test_the_service_is_ready_and_says_what_it_runs(running: Service) -> None:
    models = {"one": True, "two": True}
    assert httpx.get(f"{running.url}/ready").json() == {"ready": True, "models": models}
    assert httpx.get(f"{running.url}/version").json() == {"version": VERSION}
    assert httpx.get(f"{running.url}/health").json() == {"status": "ok"}
    assert httpx.get(f"{running.url}/", follow_redirects=False).headers["location"] == "/ui/"


async def test_one_scrape_shows_what_all_gateways_and_replicas_did(service: Service) -> None:
    def counted() -> list[float]:
        names = ("cria_requests_total", "cria_completion_tokens_total")
        engine = "cria_engine_generated_tokens_total"
        return [service.metric(name, "two") for name in (*names, engine)]

    before = await asyncio.to_thread(counted)
    await asyncio.gather(*(service.text("two", max_tokens=5) for _ in range(16)))
    expected = [count + more for count, more in zip(before, (16, 80, 80), strict=True)]
    # An answer is counted after its last byte is sent.
    await asyncio.to_thread(wait_until, lambda: counted() == expected, 5)
    for _ in range(4):  # whichever gateway is asked
        assert await asyncio.to_thread(counted) == expected
    shares = [requests_of(sample, "two") for sample in await gateway_samples()]
    assert len(shares) == 2 and all(shares)


async def gateway_samples() -> list[bytes]:
    from ray import serve

    gateways = serve.get_deployment_handle("Gateway", "gateway")
    return await gateways.broadcast("samples").results_async()


def requests_of(samples: bytes, model: str) -> float:
    """Finished requests that one gateway counted."""
    (family,) = [found for found in json.loads(samples) if found[0] == "cria_requests"]
    return sum(value for _, labels, value in family[3] if ["model", model] in labels)


@pytest.mark.browser
def test_a_person_asks_regenerates_edits_and_stops_on_the_page(running: Service) -> None:
    from tests.serve.browser import Browser

    def generated() -> float:
        return running.metric("cria_engine_generated_tokens_total", "one")

    def answers() -> list[str]:
        browser.wait_until(lambda: browser.all(".answer[data-status=done]") != [])
        return [element.text for element in browser.all(".answer-body")]

    def slide(index: int, value: float) -> None:
        browser.driver.execute_script(
            "const range = document.querySelectorAll('.fields input')[arguments[0]];"
            "range.value = arguments[1]; range.dispatchEvent(new Event('input'));",
            index,
            value,
        )

    with contextlib.closing(Browser()) as browser:
        browser.open(f"{running.url}/ui/#chat")
        browser.wait_for(".box textarea")
        browser.driver.execute_script(
            "document.querySelector('.model-select select').value = 'one'"
        )
        slide(0, 0)
        slide(2, 400)
        browser.watch(".answer-body")
        browser.type(".box textarea", "What is new?\n")
        assert browser.text(".question") == "What is new?"
        lengths = browser.watched(until=20)
        assert len(set(lengths)) > 2, "the answer did not grow while it came"
        first = answers()

        browser.click("[aria-label='Answer again']")
        browser.wait_until(lambda: "2 / 2" in browser.text(".branches"))
        assert answers() == first

        browser.click("[aria-label='Edit the question']")
        browser.type("textarea.edit", " And old?")
        browser.click(".editing .primary")
        browser.wait_until(lambda: browser.text(".question") == "What is new? And old?")
        assert answers() != first
        assert len(browser.all(".turn")) == 1

        slide(2, CONTEXT)
        before = generated()
        browser.click_during(".send.stop", text=".turn:nth-child(2) .answer-body")
        browser.type(".box textarea", "Go on\n")
        browser.wait_for(".turn:nth-child(2) .answer[data-status=stopped]")
        browser.wait_until(lambda: running.metric("cria_engine_running_requests", "one") == 0)
        assert generated() - before < CONTEXT - 200, "the answer came to its end"
        assert browser.text(".turn:nth-child(2) .answer-body")
        assert not browser.errors()
