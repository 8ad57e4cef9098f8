"""What Ray Serve runs: one application per model, one for the gateway, one for the page.

launch.py starts them; `serve deploy` can, with what `python -m apps.serve build` prints.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from starlette.types import ASGIApp

from apps.common.files import config as configs
from apps.common.files.model_folder import model_folder
from apps.common.text.tokenizer import load_tokenizer
from apps.serve.admission.limiter import Limiter, Refusal
from apps.serve.applications import CLUSTER_GATEWAYS
from apps.serve.config import ApiKey, GatewayConfig, ModelConfig
from apps.serve.directory import ServeDirectory
from apps.serve.engine.config import TorchConfig, VllmConfig
from apps.serve.engine.create import create_engine
from apps.serve.engine.protocol import EngineDeadError
from apps.serve.gateway.api import build_api
from apps.serve.gateway.limits import KeyLimits
from apps.serve.gateway.metrics import GatewayMetrics
from apps.serve.model.served import mask_factory
from apps.serve.model.workers import Announcement
from apps.serve.page.config import PageConfig
from apps.serve.replica.exchange import Exchange
from apps.serve.replica.replica import ModelReplica
from apps.serve.replica.scaling import LOAD
from apps.serve.replica.wire import GatewayAddress, ReplicaName
from apps.serve.routing import ConversationRouter

logger = logging.getLogger("ray.serve")

_ENGINE_WATCH_S = 0.25
LIMITER = "cria-limiter"
_MANY = 10_000


@serve.deployment(
    name="Model",
    max_ongoing_requests=_MANY,
    health_check_period_s=2,
    health_check_timeout_s=5,  # three in a row; gateways do not wait for that
    graceful_shutdown_timeout_s=60,
    max_constructor_retry_count=3,
    request_router_config={
        "request_router_class": ConversationRouter,
        "request_router_kwargs": {"num_fallback_replicas": _MANY},  # the whole ring, if need be
    },
)
class ModelDeployment:
    """One replica: an engine and its connections to the gateways."""

    async def __init__(self, model: Mapping[str, Any]) -> None:
        config = configs.from_dict(ModelConfig, model)
        folder = await asyncio.to_thread(model_folder, config.path)
        engine = config.engine_config(folder)
        assert isinstance(engine, TorchConfig | VllmConfig)  # others have no replicas
        self._engine = create_engine(engine, mask_factory(folder))
        tokenizer, _ = await asyncio.gather(
            asyncio.to_thread(load_tokenizer, folder), self._engine.start()
        )
        context = serve.get_replica_context()
        name = ReplicaName(context.app_name, context.replica_id.unique_id)
        self._replica = ModelReplica(self._engine, name, tokenizer.digest)
        self._watch = asyncio.create_task(self._die_with_the_engine())

    async def generate(self, payload: bytes, address: Sequence[Any]) -> dict[str, Any] | None:
        return await self._replica.generate(payload, GatewayAddress(*address))

    async def kept(self, name: str, digest: str) -> bytes | None:
        return self._replica.kept(name, digest)

    async def metrics(self) -> dict[str, float]:
        capacity = self._engine.capacity()
        return {
            "running_requests": capacity.running,
            "waiting_requests": capacity.waiting,
            "kv_used_tokens": capacity.kv_used_tokens,
            "kv_total_tokens": capacity.kv_total_tokens,
            **self._engine.metrics(),
        }

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve asks twice a second and hands it to replica/scaling.py."""
        return {LOAD: self._engine.capacity().load}

    def check_health(self) -> None:
        self._engine.check_health()

    def is_well(self) -> bool:
        """For pools, which have other members while an engine is silent."""
        self._engine.check_health()
        return not self._engine.is_silent()

    async def _die_with_the_engine(self) -> None:
        """Serve would ask three times before it replaced this replica; do not wait for that."""
        while True:
            await asyncio.sleep(_ENGINE_WATCH_S)
            try:
                self._engine.check_health()
            except EngineDeadError:
                logger.exception("the engine died; this replica ends")
                await asyncio.sleep(_ENGINE_WATCH_S)  # for the gateways to hear of it
                os._exit(1)


@serve.deployment(name="Gateway", max_ongoing_requests=_MANY, graceful_shutdown_timeout_s=60)
@serve.ingress()
class GatewayDeployment:
    """The OpenAI API; its settings come as `user_config` and may change while it runs."""

    async def __init__(self) -> None:
        self._settings = GatewayConfig()
        self._metrics = GatewayMetrics()
        self._exchange = Exchange(self._count_tokens)
        await self._exchange.start(ray.util.get_node_ip_address())
        self._directory = ServeDirectory(self._exchange)
        self._limits = KeyLimits(ActorLimiter(lambda: self._settings.limits_url))
        self._tasks = [
            asyncio.create_task(self._limits.keep_leases()),
            asyncio.create_task(self._directory.watch()),
        ]

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_api(self._directory, lambda: self._settings, self._metrics, self._limits)

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        models = [configs.from_dict(ModelConfig, m) for m in user_config["models"]]
        self._settings = configs.from_dict(GatewayConfig, user_config["gateway"])
        num_gateways = self._settings.replicas or CLUSTER_GATEWAYS
        await self._directory.update(models, num_gateways, user_config.get("revisions", {}))
        self._exchange.silence_timeout_s = self._settings.silence_timeout_s

    def _count_tokens(self, application: str, number: int) -> None:
        model = self._directory.model_of(application)
        self._metrics.received_tokens.labels(model).inc(number)

    async def samples(self) -> bytes:
        return self._metrics.samples()

    async def heard(self, said: Announcement) -> int:
        return await self._directory.workers.heard(said)


class ActorLimiter:
    """The limiter of all gateways: an actor, which Ray starts again when it dies. What it counted
    lives on where limits_url names a Redis."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url
        self._actor: Any = None
        self._finding: asyncio.Task[Any] | None = None

    async def admit(
        self, key: ApiKey, prompt_tokens: int, gateway: str, streams: int
    ) -> Refusal | None:
        if self._actor is None:
            self._actor = await asyncio.shield(self._found())
        return await self._actor.admit.remote(key, prompt_tokens, gateway, streams)

    def _found(self) -> asyncio.Task[Any]:
        """One thread at most waits for Ray, for others have work for these few threads."""
        if self._finding is None or self._finding.done():
            self._finding = asyncio.create_task(asyncio.to_thread(_limiter_actor, self._url()))
        return self._finding

    def charge(self, key: ApiKey, tokens: int, usd: float, requests: int = 0) -> None:
        if self._actor is not None:
            self._actor.charge.remote(key, tokens, usd, requests)

    def renew(self, name: str, gateway: str, streams: int) -> None:
        if self._actor is not None:
            self._actor.renew.remote(name, gateway, streams)


def _limiter_actor(url: str) -> Any:
    actor = ray.remote(num_cpus=0, max_restarts=-1)(Limiter)
    named = actor.options(name=LIMITER, namespace=LIMITER, get_if_exists=True, lifetime="detached")
    return named.remote(url)


@serve.deployment(name="Page", max_ongoing_requests=_MANY, ray_actor_options={"num_cpus": 0.1})
@serve.ingress()
class PageDeployment:
    """The web page. Whatever a visitor did is in its database, so any replica serves anyone."""

    def __init__(
        self, page: Mapping[str, Any], api_url: str, models: Sequence[Mapping[str, Any]]
    ) -> None:
        self._page = configs.from_dict(PageConfig, page)
        self._api_url, self._models = api_url, models

    def __serve_build_asgi_app__(self) -> ASGIApp:
        from apps.serve.page.arena.models import PageModel
        from apps.serve.page.web.app import build_page

        models = [configs.from_dict(PageModel, model) for model in self._models]
        return build_page(self._page, self._api_url, models)


def model_app(args: dict[str, Any]) -> serve.Application:
    """Application of one model. `args` is {"model": settings, "revision": of the files}."""
    return ModelDeployment.bind(args["model"])


def gateway_app(args: dict[str, Any]) -> serve.Application:
    return GatewayDeployment.bind()


def page_app(args: dict[str, Any]) -> serve.Application:
    return PageDeployment.bind(args["page"], args["api_url"], args["models"])
