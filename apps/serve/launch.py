"""Starting, changing and ending the service on Ray Serve.

Applying a changed configuration starts, stops or updates only the applications whose part of it
changed; the others keep their replicas and streams. What is live is Serve's own state.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import time
import warnings
from collections.abc import Iterator
from typing import Any

import ray
from ray import serve
from ray._common.utils import import_attr
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.serve.config import ControllerOptions, HTTPOptions, ProxyLocation

from apps.common.command.events import Reporter
from apps.common.errors import ConfigError, CriaError
from apps.serve.applications import CLUSTER_GATEWAYS, is_ours, serve_config
from apps.serve.config import GatewayConfig, ModelConfig, ServeConfig
from apps.serve.deployment import LIMITER

_STOP_TIMEOUT_S = 30.0
_TELL_AFTER_S = 30.0
_LOOK_EVERY_S = 0.25


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
    """Start Serve if needed and hand it the applications; returns once its HTTP proxies run."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    proxies = _start_serve(config.gateway)
    entries = serve_config(config)["applications"]
    with warnings.catch_warnings():
        # Of metrics_interval_s, whose successor is a variable of every process's environment.
        warnings.filterwarnings("ignore", ".*metrics_interval_s", DeprecationWarning)
        targets = [_target(entry) for entry in entries]
    for name in serve.status().applications.keys() - {target.name for target in targets}:
        if is_ours(name):
            serve.delete(name, _blocking=False)
    _deploy(targets)
    _wait_for_proxies(proxies)


def _start_serve(gateway: GatewayConfig) -> list[Any]:
    """Start Serve if it does not run. As `serve.start`, which would wait for the HTTP proxies,
    and the models can start beside them; what tells that they run is returned."""
    from ray.serve._private.api import _create_controller_and_proxy_refs
    from ray.serve._private.client import ServeControllerClient
    from ray.serve.context import _get_global_client, _set_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    proxies: list[Any] = []
    if client is None:
        http = HTTPOptions(host=gateway.host, port=gateway.port)
        controller, proxies = _create_controller_and_proxy_refs(
            http, None, None, None, ControllerOptions(), ProxyLocation.EveryNode
        )
        client = ServeControllerClient(controller)
        _set_global_client(client)
    _check_address(client.http_config, gateway)
    return proxies


def _target(entry: dict[str, Any]) -> serve.RunTarget:
    """An application of `serve_config`, built here: Serve would build each in a process of its own,
    which imports Serve and us first. Its version is what Serve would take, a digest of what needs
    new replicas; the public `serve.run` gives a new one every time and so restarts all of them."""
    args = entry.get("args", {})
    application = import_attr(entry["import_path"])(args)
    (settings,) = entry["deployments"]
    version = hashlib.sha256(
        json.dumps([entry["import_path"], args], sort_keys=True).encode()
    ).hexdigest()
    deployment = application._bound_deployment.options(**settings, version=version, _internal=True)
    return serve.RunTarget(
        serve.Application(deployment),
        name=entry["name"],
        route_prefix=entry["route_prefix"],
        logging_config={"enable_access_log": False},
    )


def _deploy(targets: list[serve.RunTarget]) -> None:
    try:
        with contextlib.suppress(TimeoutError):  # of a proxy, which Serve replaces
            serve.run_many(
                targets,
                wait_for_ingress_deployment_creation=False,
                wait_for_applications_running=False,
            )
    except RayTaskError as error:
        raise CriaError(f"Ray Serve refuses the applications: {error.cause}") from error


def _wait_for_proxies(proxies: list[Any]) -> None:
    try:
        # Serve gives up on one that starts slowly, as on a busy machine, and starts another.
        with contextlib.suppress(RayActorError):
            ray.get(proxies)
    except RayTaskError as error:
        stop()  # what did start would stay in a cluster that was joined, and keep this address
        reason = str(error.cause).strip().splitlines()[-1]
        raise CriaError(f"Ray Serve's HTTP proxy did not start: {reason}") from error


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


def _end_limiter() -> None:
    with contextlib.suppress(ValueError):  # there is none
        ray.kill(ray.get_actor(LIMITER, namespace=LIMITER))


def wait_until_running(config: ServeConfig, reporter: Reporter, timeout_s: float) -> None:
    """Raises CriaError with Serve's reason when an application cannot start."""
    names = {entry["name"] for entry in serve_config(config)["applications"]}
    began_s = told_s = time.monotonic()
    up: set[str] = set()
    with reporter.progress("serve.start", total=len(names), unit="applications") as bar:
        while True:
            status = serve.status()
            listens = "HEALTHY" in status.proxies.values()
            for name in sorted(names - up):
                if _has_started(name, status):
                    up.add(name)
                    bar.advance(1, latest=name)
            if listens and up == names:
                return
            now_s = time.monotonic()
            late = ", ".join(sorted(names - up)) or "the HTTP proxy"
            if now_s - began_s > timeout_s:
                raise CriaError(f"Not up after {timeout_s:g} s: {late}; see the replicas' logs.")
            if now_s - told_s > _TELL_AFTER_S:
                told_s = now_s
                reporter.event("serve.waiting", waits_for=late, seconds=round(now_s - began_s))
            time.sleep(_LOOK_EVERY_S)


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
