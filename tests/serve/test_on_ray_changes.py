"""Changing the models of a running service."""

import asyncio
import dataclasses
import hashlib

import httpx
import openai
import pytest

from apps.common.command.runtime import free_port
from apps.common.errors import ConfigError
from apps.serve.config import ApiKey, ModelConfig, ServeConfig
from apps.serve.page.config import PageConfig
from tests.serve.service import ON_RAY, QUESTION, Service, replicas_of

pytestmark = ON_RAY


async def apply(service: Service, config: ServeConfig) -> int:
    """How many streams of `one` came and went undisturbed meanwhile."""
    fields = {"max_tokens": 1000, "extra_body": {"ignore_eos": True}}
    expected = await service.text("one", **fields)
    applied = asyncio.ensure_future(asyncio.to_thread(service.apply, config))
    streams = 0
    while not applied.done():
        assert await service.streamed("one", **fields) == expected
        streams += 1
    await applied
    return streams


def names(replicas: list) -> set[str]:
    return {replica._actor_id.hex() for replica in replicas}


async def test_a_model_is_added_changed_renamed_and_removed_while_others_stream(
    service: Service,
) -> None:
    config = service.config
    one, two = config.models

    def of(*models: ModelConfig) -> ServeConfig:
        return dataclasses.replace(config, models=models)

    kept = names([*replicas_of("one"), *replicas_of("two")])
    three = dataclasses.replace(one, name="three")
    assert await apply(service, of(one, two, three))
    assert await service.text("three") == await service.text("one")
    (added,) = names(replicas_of("three"))

    three, first = (
        dataclasses.replace(three, options={"prefix_cache": False}),
        dataclasses.replace(one, aliases=("first",)),
    )
    assert await apply(service, of(first, two, three))
    assert await service.text("first") == await service.text("three")
    assert added not in names(replicas_of("three"))

    assert await apply(service, of(first, two))
    assert [model.id async for model in service.client.models.list()] == ["one", "two"]
    with pytest.raises(openai.NotFoundError):
        await service.text("three")
    assert names([*replicas_of("one"), *replicas_of("two")]) == kept and len(kept) == 3


def test_an_application_of_somebody_else_stays_when_the_models_change(running: Service) -> None:
    from ray import serve

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    def hello() -> str:
        return "hello"

    serve.run(hello.bind(), name="theirs", route_prefix="/theirs")
    running.apply(running.config)
    assert httpx.get(f"{running.url}/theirs").text == "hello"
    serve.delete("theirs")


def test_a_second_address_in_one_cluster_is_refused_and_the_first_goes_on(running: Service) -> None:
    moved = dataclasses.replace(running.config.gateway, port=free_port())
    with pytest.raises(ConfigError, match=f"already runs.*:{running.config.gateway.port}, not on"):
        running.apply(dataclasses.replace(running.config, gateway=moved))
    assert running.config.gateway != moved
    assert httpx.get(f"{running.url}/ready").status_code == 200


async def test_a_keys_limit_holds_over_all_gateways_and_outlives_the_limiter(
    service: Service,
) -> None:
    import ray

    before, secret = service.config, "sesame"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    key = ApiKey(name="ali", sha256=digest, requests_per_minute=4, admin=True)
    gateway = dataclasses.replace(before.gateway, api_keys=(key,))
    guarded = dataclasses.replace(before, gateway=gateway, page=PageConfig(enabled=False))
    service.apply(guarded)

    async def ask() -> int:
        headers = {"authorization": f"Bearer {secret}"}
        body = {"model": "one", "messages": QUESTION, "max_tokens": 2}
        async with httpx.AsyncClient(headers=headers, timeout=60) as client:
            return (await client.post(f"{service.url}/v1/chat/completions", json=body)).status_code

    try:
        assert sorted([await ask() for _ in range(10)]) == [200] * 4 + [429] * 6
        limiter = ray.get_actor("cria-limiter", namespace="cria-limiter")
        ray.kill(limiter, no_restart=False)
        assert {await ask() for _ in range(6)} <= {200, 429}
        assert httpx.get(f"{service.url}/metrics").status_code == 401
    finally:
        service.apply(before)
