"""Changing the models of a running service."""

import asyncio
import dataclasses

import httpx
import openai
import pytest

from apps.common.command.runtime import free_port
from apps.common.errors import ConfigError
from apps.serve.config import ModelConfig, ServeConfig
from tests.serve.service import ON_RAY, Service, replicas_of

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


def test_a_second_address_in_one_cluster_is_refused_and_the_first_goes_on(running: Service) -> None:
    moved = dataclasses.replace(running.config.gateway, port=free_port())
    with pytest.raises(ConfigError, match=f"already runs.*:{running.config.gateway.port}, not on"):
        running.apply(dataclasses.replace(running.config, gateway=moved))
    assert running.config.gateway != moved
    assert httpx.get(f"{running.url}/ready").status_code == 200
