"""The wiring to Ray Serve: one application per model, one for the gateway, one for the page.

Applying a changed configuration starts, stops or updates only the applications whose part of it
changed; the others keep their replicas and streams. What is live is Serve's own state.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.serve.config import HTTPOptions
from starlette.types import ASGIApp

from apps.common.command.events import Reporter
from apps.common.errors import ConfigError, CriaError
from apps.common.files import config as configs
from apps.common.files.model_folder import model_folder
from apps.serve.admission.limiter import Limiter, Refusal
from apps.serve.applications import CLUSTER_GATEWAYS, serve_config
from apps.serve.config import ApiKey, GatewayConfig, ModelConfig, ServeConfig
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
from apps.serve.replica.wire import GatewayAddress, ReplicaName
from apps.serve.routing import ConversationRouter
from apps.serve.scaling import LOAD

logger = logging.getLogger("ray.serve")

_ENGINE_WATCH_S = 0.25
_STOP_TIMEOUT_S = 30.0
_TELL_AFTER_S = 30.0
_LIMITER = "cria-limiter"
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
        await self._engine.start()
        context = serve.get_replica_context()
        name = ReplicaName(context.app_name, context.replica_id.unique_id)
        self._replica = ModelReplica(self._engine, name)
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
        """Serve asks twice a second and hands it to scaling.py."""
        return {LOAD: self._engine.capacity().load}

    def check_health(self) -> None:
        self._engine.check_health()

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
        await self._directory.update(models, self._settings.replicas or CLUSTER_GATEWAYS)
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

    async def admit(
        self, key: ApiKey, prompt_tokens: int, gateway: str, streams: int
    ) -> Refusal | None:
        if self._actor is None:
            self._actor = await asyncio.to_thread(_limiter_actor, self._url())
        return await self._actor.admit.remote(key, prompt_tokens, gateway, streams)

    def charge(self, key: ApiKey, tokens: int, usd: float) -> None:
        if self._actor is not None:
            self._actor.charge.remote(key, tokens, usd)

    def renew(self, name: str, gateway: str, streams: int) -> None:
        if self._actor is not None:
            self._actor.renew.remote(name, gateway, streams)


def _limiter_actor(url: str) -> Any:
    actor = ray.remote(num_cpus=0, max_restarts=-1)(Limiter)
    named = actor.options(
        name=_LIMITER, namespace=_LIMITER, get_if_exists=True, lifetime="detached"
    )
    return named.remote(url)


def _end_limiter() -> None:
    with contextlib.suppress(ValueError):  # there is none
        ray.kill(ray.get_actor(_LIMITER, namespace=_LIMITER))


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


@contextlib.contextmanager
def serving(config: ServeConfig, reporter: Reporter, timeout_s: float) -> Iterator[None]:
    """Serve for the length of the block, then shut Serve down."""
    apply(config)
    try:
        wait_until_running(config, reporter, timeout_s)
        yield
    finally:
        stop()


def with_entries(config: ServeConfig) -> ServeConfig:
    """As many gateways as this cluster should have, where the file does not say."""
    machines = sum(node["Alive"] for node in ray.nodes())
    replicas = config.gateway.replicas or min(machines, CLUSTER_GATEWAYS)
    gateway = dataclasses.replace(config.gateway, replicas=replicas)
    return dataclasses.replace(config, gateway=gateway)


def apply(config: ServeConfig) -> None:
    """Start Serve if needed and hand it the configuration; returns before anything has started."""
    # The same two calls as `serve run CONFIG.yaml` of Ray 2.60 (ray/serve/scripts.py): the public
    # serve.run gives every application a new version and so would restart all of them.
    from ray.serve._private.api import serve_start
    from ray.serve.schema import ServeDeploySchema

    with warnings.catch_warnings():
        # Of metrics_interval_s, whose successor is a variable of every process's environment.
        warnings.filterwarnings("ignore", ".*metrics_interval_s", DeprecationWarning)
        schema = ServeDeploySchema.model_validate(serve_config(config))
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    http = HTTPOptions(host=config.gateway.host, port=config.gateway.port)
    try:
        client = serve_start(http_options=http, proxy_location=schema.proxy_location)
    except RayActorError:
        # Serve gives up on a proxy that starts slowly, as on a busy machine, and starts another.
        client = serve_start(http_options=http, proxy_location=schema.proxy_location)
    except RayTaskError as error:
        stop()  # what did start would stay in a cluster that was joined, and keep this address
        reason = str(error.cause).strip().splitlines()[-1]
        raise CriaError(f"Ray Serve's HTTP proxy did not start: {reason}") from error
    _check_address(client.http_config, config.gateway)
    client.deploy_apps(schema, _blocking=False)


def _check_address(running: Any, wanted: GatewayConfig) -> None:
    """A Serve that runs already keeps its address, whatever it is asked for."""
    if (running.host, running.port) != (wanted.host, wanted.port):
        raise ConfigError(
            f"Ray Serve already runs in this cluster, on {running.host}:{running.port}, not on "
            f"{wanted.host}:{wanted.port}; set gateway.host and gateway.port to where it is, or "
            "end it with `serve shutdown`."
        )


def stop() -> None:
    """Shut Serve down. As `serve.shutdown()`, whose last call dies with the controller and would be
    retried without end, which Ray tells on our standard output."""
    from ray.serve.context import _get_global_client

    _end_limiter()
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        last = client._controller.graceful_shutdown.options(max_task_retries=0)
        with contextlib.suppress(RayActorError, GetTimeoutError):
            ray.get(last.remote(), timeout=_STOP_TIMEOUT_S)
    serve.shutdown()


def wait_until_running(config: ServeConfig, reporter: Reporter, timeout_s: float) -> None:
    """Raises CriaError with Serve's reason when an application cannot start."""
    names = {entry["name"] for entry in serve_config(config)["applications"]}
    began_s = told_s = time.monotonic()
    up: set[str] = set()
    with reporter.progress("serve.start", total=len(names), unit="applications") as bar:
        listens = False
        while not listens or up != names:
            status = serve.status()
            listens = "HEALTHY" in status.proxies.values()
            for name in sorted(names - up):
                if _has_started(name, status):
                    up.add(name)
                    bar.advance(1, latest=name)
            now_s = time.monotonic()
            late = ", ".join(sorted(names - up)) or "the HTTP proxy"
            if now_s - began_s > timeout_s:
                raise CriaError(f"Not up after {timeout_s:g} s: {late}; see the replicas' logs.")
            if now_s - told_s > _TELL_AFTER_S and not (listens and up == names):
                told_s = now_s
                reporter.event("serve.waiting", waits_for=late, seconds=round(now_s - began_s))
            time.sleep(0.1)


def _has_started(name: str, status: Any) -> bool:
    app = status.applications.get(name)
    if app is not None and app.status.value == "DEPLOY_FAILED":
        raise CriaError(_why(name, app))
    return app is not None and app.status.value == "RUNNING"


def _why(name: str, app: Any) -> str:
    detail = " | ".join(d.message for d in app.deployments.values() if d.message) or app.message
    lines = [line.strip() for line in detail.splitlines() if line.strip()]
    return f"Application {name!r} did not start: {' '.join(lines[-3:])[:600]}"


def check_fits(config: ServeConfig) -> None:
    """Raises ConfigError when the cluster can never hold what the configuration asks for."""
    have = ray.cluster_resources()
    for key, name in (("cpus", "CPU"), ("gpus", "GPU")):
        local = [m for m in config.models if m.is_local]
        wanted = sum(getattr(m.resources, key) * _fewest_replicas(m) for m in local)
        if wanted > have.get(name, 0):
            raise ConfigError(
                f"The models ask for {wanted:g} {name}s, the cluster has {have.get(name, 0):g}; "
                f"lower resources.{key} or the number of replicas, or add nodes."
            )


def _fewest_replicas(model: ModelConfig) -> int:
    return model.autoscaling.min_replicas if model.autoscaling else model.replicas
