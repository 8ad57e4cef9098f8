"""The API over a scripted engine, over the torch engine, and as a service on Ray."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import tokenizers
import uvicorn
from tokenizers import decoders, models, pre_tokenizers

from apps.common.command.runtime import free_port
from apps.serve.config import GatewayConfig, ModelConfig, PageConfig, Resources, ServeConfig
from apps.serve.engine.config import TorchConfig
from apps.serve.engine.protocol import Engine, Request, Step
from apps.serve.gateway.api import build_api
from apps.serve.gateway.metrics import GatewayMetrics
from apps.serve.model.directory import Entry
from apps.serve.model.served import ServedModel, load_model, mask_factory
from apps.serve.replica.exchange import EngineBackend, ReplicaLostError
from tests.serve.scripted import Script, ScriptedEngine
from tests.serve.service import CONTEXT, Service
from tests.serve.tokenizer_kinds import byte_fallback

CHATML = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_end|>", "<|im_start|>", "<|fim_prefix|>", "<|fim_suffix|>")


def write_text_files(folder: Path, template: str = CHATML) -> Path:
    """Tokenizer (one token per byte), template and settings of a model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*SPECIAL, "<|fim_middle|>"]
    vocabulary = {text: i for i, text in enumerate([*names, *alphabet])}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(names))
    backend.save(str(folder / "tokenizer.json"))
    files = {
        "config.json": {"model_type": "llama", "max_position_embeddings": 512},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
        },
        "generation_config.json": {"eos_token_id": [1]},
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    (folder / "chat_template.jinja").write_text(template)
    return folder


def write_model(folder: Path, seed: int, context_tokens: int = 512) -> str:
    """A model whose likeliest token is never the end of turn: greedy answers are always long."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    write_text_files(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=262, hidden_size=64, intermediate_size=128, num_hidden_layers=8,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=context_tokens,
        eos_token_id=1, bos_token_id=None, initializer_range=0.2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data[config.eos_token_id] = 0
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1]}))
    return str(folder)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_files(tmp_path_factory.mktemp("scripted"))


@pytest.fixture(scope="session")
def served(model_folder: Path) -> ServedModel:
    return load_model(ModelConfig(name="scripted", path=str(model_folder), aliases=("gpt-x",)))


class OneModel:
    """A directory of one model."""

    def __init__(self, model: ServedModel, engine: Engine, metrics: GatewayMetrics) -> None:
        self.entries = {model.config.name: Entry(model=model, backend=EngineBackend(engine))}
        self._engine = engine
        self._metrics = metrics

    async def ready(self) -> dict[str, bool]:
        return dict.fromkeys(self.entries, True)

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
        metrics = GatewayMetrics()
        self.directory = OneModel(model, engine, metrics)
        self.app = build_api(self.directory, lambda: self.settings, metrics)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def chat(self, content: str = "Hi", **fields: object) -> httpx.Response:
        messages = [{"role": "user", "content": content}]
        body = {"model": "scripted", "messages": messages, **fields}
        return await self.http.post("/v1/chat/completions", json=body)

    async def complete(self, prompt: object = "Hi", **fields: object) -> httpx.Response:
        body = {"model": "scripted", "prompt": prompt, **fields}
        return await self.http.post("/v1/completions", json=body)


@pytest.fixture
def api_saying(served: ServedModel) -> Iterator[Callable[..., Api]]:
    """`api_saying("text")`, or a script; the API over an engine that says that."""

    def make(says: str | Script, step_s: float = 0.0, max_waiting: int = 100) -> Api:
        def script(request: object) -> list[int]:
            return served.tokenizer.backend.encode(str(says)).ids

        engine = ScriptedEngine(says if callable(says) else script, step_s, max_waiting)
        return Api(served, engine)

    yield make


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
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


class LiveServer:
    """The API on a loopback port, its loop in a thread."""

    def __init__(self, api: Api) -> None:
        self.api = api
        config = uvicorn.Config(api.app, port=0, log_level="error", lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> "LiveServer":
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture(scope="session")
def random_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The API over the torch engine, with a model named `random` that was never trained."""
    from apps.serve.engine.torch.engine import TorchEngine

    folder = write_model(tmp_path_factory.mktemp("random"), seed=3, context_tokens=4096)
    engine = TorchEngine(TorchConfig(path=folder), mask_factory(folder))
    asyncio.run(engine.start())
    with LiveServer(Api(load_model(ModelConfig(name="random", path=folder)), engine)) as server:
        yield server
    asyncio.run(engine.close())


@pytest.fixture(scope="session")
def running(ray_session: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """On the session's Ray: two gateways, model `one` with one replica and `two` with two."""
    from ray import serve

    folder = tmp_path_factory.mktemp("models")
    models = tuple(
        ModelConfig(
            name=name,
            path=write_model(folder / name, replicas, CONTEXT),
            replicas=replicas,
            resources=Resources(cpus=0.5),
        )
        for name, replicas in (("one", 1), ("two", 2))
    )
    config = ServeConfig(
        models=models,
        gateway=GatewayConfig(port=free_port(), replicas=2),
        page=PageConfig(votes_url=f"sqlite:///{folder}/votes.db", examples=("What is new?",)),
    )
    service = Service(config)
    service.apply(config)
    yield service
    serve.shutdown()


@pytest.fixture
async def service(running: Service) -> AsyncIterator[Service]:
    """The running service with a client of this test's event loop."""
    url = f"{running.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as running.client:
        yield running


class Losses:
    """How often a replica was lost."""

    count = 0


@pytest.fixture
def dying() -> Callable[..., Losses]:
    """`dying(api, after_tokens, times)`: the backend loses its replica that often."""

    def make(
        api: Api, after_tokens: int, times: int, error: type[Exception] = ReplicaLostError
    ) -> Losses:
        directory = api.directory
        entry = directory.entries["scripted"]
        losses = Losses()

        class DyingBackend:
            async def steps(self, request: Request) -> AsyncIterator[Step]:
                left = after_tokens
                async with contextlib.aclosing(entry.backend.steps(request)) as steps:
                    async for step in steps:
                        if losses.count < times and left == 0:
                            losses.count += 1
                            raise error("killed")
                        left -= 1
                        yield step

        directory.entries["scripted"] = Entry(model=entry.model, backend=DyingBackend())
        return losses

    return make
