"""How many replicas a model should have."""

import asyncio
import dataclasses
import time
from types import SimpleNamespace

import httpx
import pytest

from apps.serve.config import Autoscaling
from apps.serve.engine.protocol import Capacity
from apps.serve.replica.scaling import LOAD, ByLoad
from tests.serve.service import ON_RAY, Service, replicas_of, wait_until

IDLE = Capacity(
    running=0, waiting=0, max_running=32, max_waiting=512, kv_used_tokens=0, kv_total_tokens=4000
)
SCALED_S = 240
"""a replica imports torch, beside whatever else the machine does"""


def wanted(num_requests: float, *loads: float) -> float:
    metrics = {LOAD: dict(enumerate(loads))} if loads else {}
    counted = SimpleNamespace(total_num_requests=num_requests, aggregated_metrics=metrics)
    return ByLoad(target_ongoing_requests=24, target_load=0.8)(counted)[0]


def test_the_scarcer_of_places_and_tokens_is_the_load() -> None:
    assert IDLE.load == 0
    assert dataclasses.replace(IDLE, running=16, kv_used_tokens=1000).load == 0.5
    busy = dataclasses.replace(IDLE, running=8, kv_used_tokens=3000)
    assert busy.load == 0.75 and dataclasses.replace(busy, waiting=4).load == 1.125
    assert dataclasses.replace(IDLE, kv_total_tokens=0, running=32).load == 1
    assert dataclasses.replace(IDLE, waiting=16).load == 0.5, "nothing runs as yet"


def test_few_long_requests_ask_for_replicas_as_many_short_ones_do() -> None:
    assert wanted(30) == 1.25
    assert wanted(3, 1.6) == 2
    assert wanted(30, 1.0, 1.2) == pytest.approx(2.75)
    assert wanted(0, 0.0, 0.0) == 0


def on_ray(function):
    for mark in (*ON_RAY, pytest.mark.slow):
        function = mark(function)
    return function


@on_ray
async def test_a_model_sleeps_wakes_with_the_request_held_and_grows_in_a_burst(
    service: Service,
) -> None:
    """Prints how long each took."""
    before = service.config
    scaling = Autoscaling(
        min_replicas=0, max_replicas=2, target_ongoing_requests=100, downscale_delay_s=3
    )
    small = dataclasses.replace(
        before.models[0], name="sleeper", autoscaling=scaling, options={"max_running": 4}
    )
    config = dataclasses.replace(before, models=(*before.models, small))
    await asyncio.to_thread(service.apply, config)
    try:
        wait_until(lambda: len(replicas_of("sleeper")) == 0, SCALED_S)
        began_s = time.monotonic()
        assert await service.text("sleeper") == await service.text("one")
        print(f"woken and answered in {time.monotonic() - began_s:.1f} s")
        began_s, fields = time.monotonic(), {"max_tokens": 3000, "extra_body": {"ignore_eos": True}}
        burst = [asyncio.create_task(service.text("sleeper", **fields)) for _ in range(8)]
        while len(replicas_of("sleeper")) < 2:
            assert not all(task.done() for task in burst), "the burst ended before a second came"
            await asyncio.sleep(0.1)
        print(f"a second replica begins {time.monotonic() - began_s:.1f} s after the burst")
        assert len(set(await asyncio.gather(*burst))) == 1
        await asyncio.to_thread(wait_until, lambda: not replicas_of("sleeper"), SCALED_S)
        assert httpx.get(f"{service.url}/ready").json()["models"]["sleeper"], "it can be asked"
    finally:
        await asyncio.to_thread(service.apply, before)
