"""A running service to talk to, and its replicas to look into and to break."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from apps.serve.config import ServeConfig

CONTEXT = 4096
START_TIMEOUT_S = 240  # nine processes that import torch or gradio, on two cores that may be slow
QUESTION: Any = [{"role": "user", "content": "Tell me something"}]
ON_RAY = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    # Ray 2.60's own schemas, with the pydantic that goes with it.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`"),
]


class Service:
    """A running service and the settings it runs with."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self.url = f"http://127.0.0.1:{config.gateway.port}"
        self.client: openai.AsyncOpenAI

    def apply(self, config: ServeConfig) -> None:
        from apps.common.command.events import Reporter
        from apps.serve import launch

        launch.apply(config)
        launch.wait_until_running(config, Reporter("json"), START_TIMEOUT_S)
        self.config = config

    def metric(self, name: str, model: str) -> float:
        """Sum over all label sets of that model."""
        text = httpx.get(f"{self.url}/metrics", timeout=30).text
        sample = re.compile(rf'^{name}{{[^}}]*model="{model}"[^}}]*}} (\S+)$', re.M)
        return sum(float(value) for value in sample.findall(text))

    async def text(self, model: str = "one", **fields: Any) -> str:
        fields = {"temperature": 0, "max_tokens": 60, **fields}
        answer = await self.client.chat.completions.create(model=model, messages=QUESTION, **fields)
        return answer.choices[0].message.content

    async def streamed(self, model: str = "one", **fields: Any) -> str:
        return "".join([piece async for piece in self.pieces(model, **fields)])

    async def pieces(self, model: str = "one", **fields: Any):
        fields = {"temperature": 0, "max_tokens": 60, **fields}
        stream = await self.client.chat.completions.create(
            model=model, messages=QUESTION, stream=True, **fields
        )
        async with stream:
            async for chunk in stream:
                yield chunk.choices[0].delta.content or ""


def replicas_of(model: str) -> list[Any]:
    """Actor handles of a model's replicas."""
    import ray

    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    with contextlib.suppress(ValueError):  # one may end meanwhile
        return [
            ray.get_actor(n, namespace="serve") for n in names if f"::model-{model}#Model#" in n
        ]
    return replicas_of(model)


def inside(replica: Any, fn: Callable[[Any], Any]) -> Any:
    """fn(ModelDeployment) in the replica's process."""
    import ray

    call = replica.__ray_call__.remote(
        lambda actor: fn(actor._replica_impl._user_callable_wrapper._callable)
    )
    return ray.get(call, timeout=30)


def pid_of(actor: Any) -> int:
    import ray

    return ray.get(actor.__ray_call__.remote(lambda _: os.getpid()), timeout=30)


def kill(actor: Any) -> None:
    os.kill(pid_of(actor), signal.SIGKILL)


def wait_until(condition: Callable[[], object], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s"
        time.sleep(0.05)
