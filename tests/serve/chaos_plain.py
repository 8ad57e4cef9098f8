"""The same blows on Ray Serve alone, for comparison: the API and its engine in each replica.

    python -m tests.serve.chaos_plain replica proxy controller node drain

What a user of Ray Serve writes: one deployment with a FastAPI ingress. Nothing stands in front of
its replicas but Serve's proxy, and the clients do not reconnect.
"""

import os

os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}

import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar

import httpx
from ray import serve

from apps.serve.client import lines_of
from tests.serve.chaos import NUM_REPLICAS, Service, actors, main

NAME = "plain"


@serve.deployment(
    name=NAME,
    num_replicas=NUM_REPLICAS,
    max_ongoing_requests=1000,
    ray_actor_options={"num_cpus": 1},
)
@serve.ingress()
class Plain:
    """The whole API in one process."""

    async def __init__(self, model: dict[str, Any]) -> None:
        from apps.common.files import config as configs
        from apps.serve.config import ModelConfig
        from apps.serve.engine.config import TorchConfig
        from apps.serve.engine.torch.engine import TorchEngine
        from apps.serve.model.served import load_model, mask_factory
        from tests.serve.api import Api

        config = configs.from_dict(ModelConfig, model)
        engine = TorchEngine(TorchConfig(path=config.path), mask_factory(config.path))
        await engine.start()
        self._api = Api(load_model(config), engine)

    def __serve_build_asgi_app__(self) -> Any:
        return self._api.app


class PlainService(Service):
    whole: ClassVar = {NAME: NUM_REPLICAS}

    def start(self) -> None:
        from apps.common.files import config as configs

        http = {"host": "127.0.0.1", "port": self._config.gateway.port}
        serve.start(proxy_location="EveryNode", http_options=http)
        model = configs.to_dict(self._config.models[0])
        serve.run(Plain.bind(model), name=NAME, route_prefix="/")

    def replicas(self) -> list[Any]:
        return actors(f"::{NAME}#{NAME}#")


class PlainClient:
    """Reads a stream once."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._http = httpx.AsyncClient(base_url=urls[0], timeout=120)

    async def __aenter__(self) -> "PlainClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def stream(self, route: str, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        async with self._http.stream("POST", route, json={**body, "stream": True}) as answer:
            answer.raise_for_status()
            async for line in lines_of(answer):
                if line == "data: [DONE]":
                    return
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))
        raise ConnectionError("the stream was cut")


if __name__ == "__main__":
    main(sys.argv[1:], PlainService, PlainClient)
