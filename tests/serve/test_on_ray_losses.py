"""Replicas that die, hang or run out of memory while they answer."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest

from tests.serve.service import ON_RAY, Service, inside, kill, pid_of, replicas_of, wait_until

pytestmark = ON_RAY

LONG = {"max_tokens": 1500, "temperature": 1.0, "extra_body": {"ignore_eos": True}}
REPLACED_S = 120  # a replica imports torch, beside whatever else the machine does


def freeze(replica: Any) -> None:
    os.kill(pid_of(replica), signal.SIGSTOP)


def thaw(replica_pid: int) -> None:
    os.kill(replica_pid, signal.SIGCONT)


def fill_memory(replica: Any) -> None:
    inside(replica, raise_memory_error)


def hang(replica: Any) -> None:
    inside(replica, sleep_in_a_step)


def raise_memory_error(deployment: Any) -> None:
    def forward(*_: object) -> None:
        raise MemoryError

    deployment._engine.model.forward = forward


def sleep_in_a_step(deployment: Any) -> None:
    engine = deployment._engine
    object.__setattr__(engine.config, "hang_timeout_s", 0.5)
    engine.model.forward = lambda *_: time.sleep(3600)


@pytest.mark.parametrize(
    "break_it",
    [kill, fill_memory, *(pytest.param(f, marks=pytest.mark.slow) for f in (hang, freeze))],
)
async def test_a_broken_replica_is_replaced_and_no_answer_shows_it(
    service: Service, break_it: Any
) -> None:
    seeds = range(4)
    wait_until(lambda: service.metric("cria_replicas", "two") == 2, REPLACED_S)
    undisturbed = [await service.text("two", seed=seed, **LONG) for seed in seeds]

    streams = [service.pieces("two", seed=seed, **LONG) for seed in seeds]
    texts = ["".join([await anext(pieces) for _ in range(20)]) for pieces in streams]
    replica, num_running = max(
        ((r, inside(r, lambda d: d._engine.capacity().running)) for r in replicas_of("two")),
        key=lambda pair: pair[1],
    )
    assert num_running >= 2
    process = psutil.Process(pid_of(replica))
    break_it(replica)
    wait_until(lambda: service.metric("cria_replicas", "two") >= 1, 10)  # the other one
    short = asyncio.gather(*(service.text("two", seed=seed) for seed in seeds))
    for i, pieces in enumerate(streams):
        texts[i] += "".join([piece async for piece in pieces])
    assert texts == undisturbed
    assert all(await short)

    wait_until(lambda: not process.is_running(), REPLACED_S)
    wait_until(lambda: service.metric("cria_replicas", "two") == 2, REPLACED_S)
    assert await service.text("two", seed=0, **LONG) == undisturbed[0]


async def longest_pause_s(pieces: AsyncIterator[str]) -> tuple[str, float]:
    """The rest of a stream, and the longest time without a piece of it."""
    text, longest_s, last_s = "", 0.0, time.monotonic()
    async for piece in pieces:
        now_s = time.monotonic()
        text, longest_s, last_s = text + piece, max(longest_s, now_s - last_s), now_s
    return text, longest_s


@pytest.mark.slow
async def test_a_frozen_replica_holds_no_stream_for_long_and_gets_no_new_requests(
    service: Service,
) -> None:
    seeds = range(8)
    short = {**LONG, "max_tokens": 100}
    wait_until(lambda: service.metric("cria_replicas", "two") == 2, REPLACED_S)
    undisturbed = [await service.text("two", seed=seed, **LONG) for seed in seeds]
    streams = [service.pieces("two", seed=seed, **LONG) for seed in seeds]
    texts = ["".join([await anext(pieces) for _ in range(20)]) for pieces in streams]
    replica = max(
        replicas_of("two"), key=lambda r: inside(r, lambda d: d._engine.capacity().running)
    )
    frozen = pid_of(replica)
    freeze(replica)
    try:
        late = [service.text("two", seed=seed, **short) for seed in seeds]
        rests, *new = await asyncio.gather(
            asyncio.gather(*(longest_pause_s(pieces) for pieces in streams)), *late
        )
        began_s = time.monotonic()
        new += await asyncio.gather(*(service.text("two", seed=seed, **short) for seed in seeds))
        took_s = time.monotonic() - began_s
    finally:
        thaw(frozen)
    assert [text + rest for text, (rest, _) in zip(texts, rests, strict=True)] == undisturbed
    assert all(map(str.startswith, undisturbed * 2, new))
    assert max(pause_s for _, pause_s in rests) < service.config.gateway.silence_timeout_s + 5
    assert took_s < 5
    wait_until(lambda: service.metric("cria_engine_running_requests", "two") == 0, 30)
