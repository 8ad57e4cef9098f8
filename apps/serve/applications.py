"""The configuration as Ray Serve takes it: an application per model, for gateway and page.

A change to the file changes only the applications whose part of it changed. Source of the schema:
https://docs.ray.io, "Serve Config Files".
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from apps.common.files import config as configs
from apps.serve.config import MODEL_APPLICATION, Autoscaling, ModelConfig, ServeConfig

GATEWAY, PAGE = "gateway", "page"
CLUSTER_GATEWAYS = 2
_MARKET = "ray.io/market-type"
NOT_ON_SPOT: Mapping[str, object] = {
    "label_selector": {_MARKET: "!spot"},
    "fallback_strategy": [{"label_selector": {}}],
}
"""Replicas may end at any time, what stands before them should not: it goes to spot machines only
when there are no others. Ray takes the label from RAY_NODE_MARKET_TYPE."""


def serve_config(config: ServeConfig) -> dict[str, Any]:
    """What `serve deploy` takes."""
    gateway = config.gateway
    local = [model for model in config.models if model.is_local]
    applications = [_gateway_entry(config), *map(_model_entry, local)]
    if config.page.enabled:
        applications.append(_page_entry(config))
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": gateway.host, "port": gateway.port},
        "logging_config": {"enable_access_log": False},
        "applications": applications,
    }


def spot_addresses(machines: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Of machines that may be taken away, while there are others; `machines` are Ray's."""
    alive = [machine for machine in machines if machine["Alive"]]
    spot = [one for one in alive if one["Labels"].get(_MARKET) == "spot"]
    is_all = len(spot) == len(alive)
    return frozenset() if is_all else frozenset(one["NodeManagerAddress"] for one in spot)


def is_ours(application: str) -> bool:
    """Whether that name can be in `serve_config`; a cluster may have other applications too."""
    return application in (GATEWAY, PAGE) or application.startswith(MODEL_APPLICATION)


def _gateway_entry(config: ServeConfig) -> dict[str, Any]:
    plain = configs.to_dict(config)
    revisions = {model.name: _revision(model.path) for model in config.models if model.is_local}
    return {
        "name": GATEWAY,
        "route_prefix": "/",
        "import_path": "apps.serve.deployment:gateway_app",
        "deployments": [
            {
                "name": "Gateway",
                "num_replicas": config.gateway.replicas or CLUSTER_GATEWAYS,
                "ray_actor_options": {"num_cpus": 0.1, **NOT_ON_SPOT},
                "user_config": {
                    "models": plain["models"],
                    "revisions": revisions,
                    "gateway": plain["gateway"],
                },
            }
        ],
    }


def _model_entry(model: ModelConfig) -> dict[str, Any]:
    """Only what needs new replicas stands in `args`; limits and prices are the gateway's."""
    scale: dict[str, Any] = {"num_replicas": model.replicas}
    if model.autoscaling is not None:
        scale = {"autoscaling_config": _autoscaling(model.autoscaling)}
    needs = model.resources
    actor: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus}
    if needs.memory_bytes is not None:
        actor["memory"] = needs.memory_bytes
    if needs.custom:
        actor["resources"] = dict(needs.custom)
    if needs.market != "any":
        actor["label_selector"] = {_MARKET: "spot" if needs.market == "spot" else "!spot"}
    engine = {
        "name": model.name,
        "path": model.path,
        "engine": model.engine,
        "options": dict(model.options),
    }
    return {
        "name": model.application,
        "route_prefix": None,
        "import_path": "apps.serve.deployment:model_app",
        "args": {"model": engine, "revision": _revision(model.path)},
        "deployments": [{"name": "Model", "ray_actor_options": actor, **scale}],
    }


def _autoscaling(wanted: Autoscaling) -> dict[str, Any]:
    """Serve's own settings would hear of a burst after ten seconds and believe it after thirty."""
    targets = {
        "target_ongoing_requests": wanted.target_ongoing_requests,
        "target_load": wanted.target_load,
    }
    return {
        "min_replicas": wanted.min_replicas,
        "max_replicas": wanted.max_replicas,
        "upscale_delay_s": wanted.upscale_delay_s,
        "downscale_delay_s": wanted.downscale_delay_s,
        "metrics_interval_s": 0.5,
        "look_back_period_s": 2.0,
        "policy": {
            "policy_function": "apps.serve.replica.scaling:ByLoad",
            "policy_kwargs": targets,
        },
    }


def _page_entry(config: ServeConfig) -> dict[str, Any]:
    return {
        "name": PAGE,
        "route_prefix": "/ui",
        "import_path": "apps.serve.deployment:page_app",
        "args": {
            "page": configs.to_dict(config.page),
            "api_url": f"{config.gateway.url_here}/v1",
            "models": [
                {
                    "name": model.name,
                    "path": model.path,
                    "max_output_tokens": model.limits.max_output_tokens,
                }
                for model in config.models
            ],
        },
        "deployments": [
            {
                "name": "Page",
                "num_replicas": config.page.replicas,
                "ray_actor_options": {"num_cpus": 0.1, **NOT_ON_SPOT},
            }
        ],
    }


def _revision(path: str) -> str:
    """Changes when the files of a local model folder do, so that applying again loads them."""
    if not os.path.isdir(path):
        return ""
    entries: list[tuple[str, int, int]] = []
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # renamed meanwhile, or a dangling link
                found = os.stat(os.path.join(folder, name))
                entries.append((os.path.join(folder, name), found.st_size, found.st_mtime_ns))
    return hashlib.sha256(repr(sorted(entries)).encode()).hexdigest()[:16]
