import asyncio
import random
from typing import Any

import pytest

from apps.serve.admission.fair_queue import FairQueue, Ticket
from apps.serve.engine.protocol import OverloadedError


async def enter(queue: FairQueue, *asked: Any) -> Ticket:
    ticket = queue.ask(*asked)
    await queue.turn(ticket)
    return ticket


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_key_that_used_less_is_next_though_it_came_last() -> None:
    queue = FairQueue(places=1, max_waiting=10)
    running = await enter(queue, "a", 1, 100)
    order: list[str] = []

    async def ask(key: str, tokens: int) -> None:
        ticket = await enter(queue, key, 1, tokens)
        order.append(key)
        queue.leave(ticket)

    asked = [asyncio.create_task(ask("a", 100)) for _ in range(3)]
    await turns()
    asked.append(asyncio.create_task(ask("b", 10)))
    await turns()
    queue.leave(running)
    await asyncio.gather(*asked)
    assert order == ["b", "a", "a", "a"]


async def test_keys_get_tokens_by_their_weights() -> None:
    queue, served = FairQueue(places=1, max_waiting=1000), {"light": 0, "heavy": 0}
    is_over = False

    async def ask(key: str, weight: float, tokens: int) -> None:
        ticket = await enter(queue, key, weight, tokens)
        if not is_over:
            served[key] += tokens
        await asyncio.sleep(0)
        queue.leave(ticket)

    asked = [asyncio.create_task(ask("light", 1, 10)) for _ in range(200)]
    asked += [asyncio.create_task(ask("heavy", 3, 30)) for _ in range(200)]
    while served["light"] < 500:
        await asyncio.sleep(0)
    is_over = True
    assert served["heavy"] / served["light"] == pytest.approx(3, rel=0.1)
    await asyncio.gather(*asked)


async def test_a_full_queue_keeps_the_light_key_and_lets_the_flood_wait_outside() -> None:
    queue = FairQueue(places=2, max_waiting=6)
    refused: dict[str, int] = {"flood": 0, "light": 0}

    async def ask(key: str) -> None:
        try:
            ticket = await enter(queue, key, 1, 50)
        except OverloadedError as error:
            assert error.retry_after_s >= 1
            refused[key] += 1
            return
        await asyncio.sleep(0.01)
        queue.leave(ticket)

    flood = [asyncio.create_task(ask("flood")) for _ in range(60)]
    await turns()
    light = [asyncio.create_task(ask("light")) for _ in range(3)]
    await asyncio.gather(*flood, *light)
    assert refused["light"] == 0 and refused["flood"] >= 52


async def test_a_request_that_leaves_at_any_moment_leaves_no_place_taken() -> None:
    rng = random.Random(0)
    queue = FairQueue(places=3, max_waiting=20)

    async def ask() -> None:
        ticket = await enter(queue, rng.choice("abc"), 1, rng.randint(1, 100), rng.randint(1, 5))
        try:
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
        finally:
            queue.leave(ticket)

    asked = []
    for _ in range(500):
        asked.append(asyncio.create_task(ask()))
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        if rng.random() < 0.5:
            rng.choice(asked).cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    assert queue._taken == 0 and queue.num_waiting == 0
    await asyncio.wait_for(enter(queue, "last", 1, 1, 9), 1)
