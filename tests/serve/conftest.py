"""The API over a scripted engine, over the torch engine, and as a service on Ray."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import openai
import pytest

from apps.common.command.runtime import free_port
from apps.serve.config import GatewayConfig, ModelConfig, Resources, ServeConfig
from apps.serve.engine.config import TorchConfig
from apps.serve.engine.protocol import Request, Step
from apps.serve.model.entry import Entry
from apps.serve.model.served import ServedModel, load_model, mask_factory
from apps.serve.page.config import PageConfig
from apps.serve.replica.exchange import ReplicaLostError
from tests.serve.api import Api, LiveServer
from tests.serve.models import write_model, write_text_files
from tests.serve.scripted import Script, ScriptedEngine
from tests.serve.service import CONTEXT, Service


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_files(tmp_path_factory.mktemp("scripted"))


@pytest.fixture(scope="session")
def served(model_folder: Path) -> ServedModel:
    return load_model(ModelConfig(name="scripted", path=str(model_folder), aliases=("gpt-x",)))


@pytest.fixture
def api_saying(served: ServedModel) -> Iterator[Callable[..., Api]]:
    """`api_saying("text")`, or a script; the API over an engine that says that."""

    def make(says: str | Script, step_s: float = 0.0, max_waiting: int = 100) -> Api:
        def script(request: object) -> list[int]:
            return served.tokenizer.backend.encode(str(says)).ids

        engine = ScriptedEngine(says if callable(says) else script, step_s, max_waiting)
        return Api(served, engine)

    yield make


@pytest.fixture
def api_of() -> Callable[[Path], Api]:
    """The API over a model folder, with an engine that says "ok"."""

    def make(folder: Path) -> Api:
        model = load_model(ModelConfig(name="scripted", path=str(folder)))
        ids = model.tokenizer.backend.encode("ok").ids
        return Api(model, ScriptedEngine(lambda request: ids))

    return make


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
        page=PageConfig(database_url=f"sqlite:///{folder}/page.db", examples=("What is new?",)),
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
            async def steps(self, request: Request, unread: list[Step]) -> AsyncIterator[Step]:
                left = after_tokens
                async with contextlib.aclosing(entry.backend.steps(request, unread)) as steps:
                    async for step in steps:
                        if losses.count < times and left == 0:
                            losses.count += 1
                            raise error("killed")
                        left -= 1
                        yield step

        directory.entries["scripted"] = Entry(model=entry.model, backend=DyingBackend())
        return losses

    return make
