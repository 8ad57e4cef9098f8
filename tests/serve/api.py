"""The API over an engine, in this process or on a loopback port."""

import json
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from apps.serve.config import GatewayConfig, ModelConfig
from apps.serve.engine.protocol import Engine, EngineDeadError, Request, Step, generate
from apps.serve.gateway.api import build_api
from apps.serve.gateway.limits import KeyLimits
from apps.serve.gateway.metrics import GatewayMetrics
from apps.serve.model.directory import AnyEntry
from apps.serve.model.entry import Entry
from apps.serve.model.pool import PoolEntry
from apps.serve.model.served import ServedModel, load_model
from apps.serve.model.workers import Announcement, Workers
from apps.serve.replica.exchange import ReplicaLostError
from tests.serve.models import write_text_files
from tests.serve.scripted import ScriptedEngine
from tests.serve.tokenizer_kinds import byte_fallback


class EngineBackend:
    """An engine in this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def kept(self, request: Request) -> None:
        return None

    async def steps(self, request: Request, unread: list[Step]) -> AsyncGenerator[Step, None]:
        try:
            async for step in generate(self._engine, request):
                yield step
        except EngineDeadError as error:
            raise ReplicaLostError(str(error)) from error


class OneModel:
    """A directory of one model."""

    def __init__(self, model: ServedModel, engine: Engine, metrics: GatewayMetrics) -> None:
        self.entries: dict[str, AnyEntry] = {
            model.config.name: Entry(model=model, backend=EngineBackend(engine))
        }
        self.spot: frozenset[str] = frozenset()
        self._engine = engine
        self._metrics = metrics
        self.workers = Workers(
            lambda: {n: e for n, e in self.entries.items() if isinstance(e, PoolEntry)}
        )

    async def announce(self, said: Announcement) -> int:
        return await self.workers.heard(said)

    async def ready(self) -> dict[str, bool]:
        return dict.fromkeys(self.entries, True)

    async def spot_addresses(self) -> frozenset[str]:
        return self.spot

    async def engine_metrics(self) -> dict[str, Sequence[dict[str, float]]]:
        return {name: [self._engine.metrics()] for name in self.entries}

    async def gateway_samples(self) -> list[bytes]:
        return [self._metrics.samples()]


class Api:
    """The API with its engine, to talk to and to look into."""

    def __init__(self, model: ServedModel, engine: Any) -> None:
        self.model = model
        self.engine = engine
        self.settings = GatewayConfig()
        metrics, self.limits = GatewayMetrics(), KeyLimits()
        self.directory = OneModel(model, engine, metrics)
        self.app = build_api(self.directory, lambda: self.settings, metrics, self.limits)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def chat(self, content: str = "Hi", **fields: object) -> httpx.Response:
        messages = [{"role": "user", "content": content}]
        body = {"model": "scripted", "messages": messages, **fields}
        return await self.http.post("/v1/chat/completions", json=body)

    async def complete(self, prompt: object = "Hi", **fields: object) -> httpx.Response:
        body = {"model": "scripted", "prompt": prompt, **fields}
        return await self.http.post("/v1/completions", json=body)


SPACED = (
    "{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }} {% else %}ASSISTANT: "
    "{% generation %}{{ m.content }}</s>{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def spaced_api(folder: Path, says: str) -> Api:
    """As with LLaMA's tokenizer and Vicuna's template: a space before each word, and the answer."""
    write_text_files(folder, SPACED)
    byte_fallback().save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2]}))
    model = load_model(ModelConfig(name="scripted", path=str(folder)))
    ids = model.tokenizer.backend.encode(says).ids
    return Api(model, ScriptedEngine(lambda request: ids, end=2))


def events(response: httpx.Response) -> list[dict]:
    """The JSON of a stream's events; checks that it ends with [DONE]."""
    lines = [line for line in response.text.split("\n") if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


class LiveServer:
    """The API on a port of its own, its loop in a thread."""

    def __init__(self, api: Api, host: str = "127.0.0.1") -> None:
        self.api, self._host = api, host
        config = uvicorn.Config(
            api.app, host=host, port=0, log_level="error", lifespan="off", ws="none"
        )
        config.timeout_graceful_shutdown = 5  # a failed test may leave a client that reads nothing
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> "LiveServer":
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://{self._host}:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
