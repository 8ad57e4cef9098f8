"""5,000 requests, three in ten given up, while replicas are killed: every one is counted once."""

import asyncio
import json
import random
from dataclasses import dataclass, field

import httpx
import pytest

from apps.serve.client import lines_of
from tests.serve.service import (
    ON_RAY,
    QUESTION,
    Service,
    inside,
    kill,
    replicas_of,
    wait_until,
)

pytestmark = [*ON_RAY, pytest.mark.slow, pytest.mark.timeout(2400)]

REQUESTS, CLIENTS, GIVEN_UP, KILLS = 2500, 32, 0.3, 10
"""Of each half: the first without a loss, the second with."""


@dataclass
class Seen:
    """What the clients saw."""

    finished: int = 0
    finished_tokens: int = 0
    given_up: int = 0
    given_up_tokens: int = 0
    failed: list[str] = field(default_factory=list[str])

    @property
    def ended(self) -> int:
        return self.finished + self.given_up


async def ask(http: httpx.AsyncClient, number: int, seen: Seen) -> None:
    draw = random.Random(number)
    leaves_after = draw.randint(0, 20) if draw.random() < GIVEN_UP else None
    body = {
        "model": "two", "messages": QUESTION, "stream": True, "temperature": 1.0, "seed": number,
        "max_tokens": draw.randint(8, 40), "stream_options": {"include_usage": True},
    }  # fmt: skip
    tokens = 0
    async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            seen.failed.append(f"{number}: {(await answer.aread())[:200]}")
            return
        async for line in lines_of(answer):
            if leaves_after is not None and tokens >= leaves_after:
                seen.given_up += 1
                seen.given_up_tokens += tokens
                return
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                seen.failed.append(f"{number}: {chunk['error']}")
                return
            tokens += bool(chunk["choices"] and chunk["choices"][0]["delta"].get("content"))
            if chunk.get("usage"):
                seen.finished += 1
                seen.finished_tokens += chunk["usage"]["completion_tokens"]
                return
    seen.failed.append(f"{number}: it ended without usage")


async def load(service: Service, first: int, seen: Seen) -> None:
    numbers = iter(range(first, first + REQUESTS))

    async def client(http: httpx.AsyncClient) -> None:
        for number in numbers:
            await ask(http, number, seen)

    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=service.url, timeout=300, limits=limits) as http:
        await asyncio.gather(*(client(http) for _ in range(CLIENTS)))


async def kills(service: Service, seen: Seen) -> None:
    """One whenever another eleventh of the requests has ended, and both replicas are there."""
    for number in range(1, KILLS + 1):
        while seen.ended < number * REQUESTS // (KILLS + 1):
            await asyncio.sleep(0.05)
        await asyncio.to_thread(
            wait_until, lambda: service.metric("cria_replicas", "two") == 2, 180
        )
        await asyncio.to_thread(kill, random.Random(number).choice(replicas_of("two")))


def numbers_of(service: Service) -> dict[str, float]:
    """Once nothing runs any more."""
    wait_until(lambda: service.metric("cria_requests_in_flight", "two") == 0, 60)
    names = ("requests", "completion_tokens", "received_tokens")
    return {name: service.metric(f"cria_{name}_total", "two") for name in names}


def generated() -> float:
    """What the engines say themselves."""
    return sum(
        inside(replica, lambda d: d._engine.metrics()["generated_tokens_total"])
        for replica in replicas_of("two")
    )


def assert_counted(before: dict[str, float], after: dict[str, float], seen: Seen) -> None:
    assert seen.failed == []
    assert after["requests"] - before["requests"] == REQUESTS == seen.ended
    counted = after["completion_tokens"] - before["completion_tokens"]
    assert counted >= seen.finished_tokens + seen.given_up_tokens
    assert after["received_tokens"] - before["received_tokens"] >= counted


async def test_every_request_of_a_soak_is_counted_once(service: Service) -> None:
    before, made, seen = numbers_of(service), generated(), Seen()
    await load(service, 0, seen)
    between = numbers_of(service)
    assert_counted(before, between, seen)
    received = between["received_tokens"] - before["received_tokens"]
    assert received == generated() - made, "the engines' own count, to the token"

    seen = Seen()
    await asyncio.gather(load(service, REQUESTS, seen), kills(service, seen))
    assert_counted(between, numbers_of(service), seen)
