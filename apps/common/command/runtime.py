"""The one place that starts or joins Ray.

    with ray_session() as session:
        ...

`RAY_ADDRESS` set (inside `ray job submit`, or by the quickstart): join that cluster. Otherwise
start a local one: token authentication, a private folder for its sockets and logs, free ports, and
at least four logical CPUs, because on fewer a Train run that reads a dataset waits forever for the
CPU that its own workers hold. Only what was started here is stopped.
"""

import contextlib
import dataclasses
import importlib
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Generator
from typing import Any

import psutil

import apps

MIN_LOGICAL_CPUS = 4
_MAX_OBJECT_STORE_BYTES = 1 << 30
_ENV = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Ray's 15 makes a replica or a training worker wait for every other process of the machine.
    "RAY_worker_niceness": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """A Ray cluster that this process is connected to."""

    address: str
    """host:port of the cluster, for RAY_ADDRESS"""
    dashboard_url: str | None
    """http://host:port, or None without a dashboard"""
    token_path: str | None
    """file with the cluster's token; None when the cluster was joined"""

    def child_env(self) -> dict[str, str]:
        """Environment with which a child process joins this cluster."""
        env = {"RAY_ADDRESS": self.address, **_ENV}
        if self.token_path is not None:
            env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": self.token_path}
        return env


@contextlib.contextmanager
def ray_session(
    *,
    num_cpus: int | None = None,
    dashboard: bool = False,
    object_store_bytes: int | None = None,
    log_to_driver: bool = False,
) -> Generator[Session]:
    """Join the cluster of RAY_ADDRESS, or run a local one for the length of the block."""
    for name, value in _ENV.items():
        os.environ.setdefault(name, value)
    if os.environ.get("RAY_ADDRESS"):
        with _joined(log_to_driver) as session:
            yield session
        return
    with _local(num_cpus, dashboard, object_store_bytes, log_to_driver) as session:
        yield session


@contextlib.contextmanager
def _joined(log_to_driver: bool) -> Generator[Session]:
    ray = _ray()
    address = os.environ["RAY_ADDRESS"]
    already = ray.is_initialized()
    if not already:
        ray.init(
            address=address,
            log_to_driver=log_to_driver,
            logging_level="ERROR",
            runtime_env=None if os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") else _code_env(),
        )
    try:
        yield Session(address=address, dashboard_url=None, token_path=None)
    finally:
        if not already:
            ray.shutdown()


@contextlib.contextmanager
def _local(
    num_cpus: int | None, dashboard: bool, object_store_bytes: int | None, log_to_driver: bool
) -> Generator[Session]:
    # Short, because the path of a Unix socket ends at 107 bytes.
    folder = tempfile.mkdtemp(prefix="cria-ray-", dir="/tmp")
    token_path = os.path.join(folder, "token")
    with open(os.open(token_path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as handle:
        handle.write(secrets.token_hex(32))
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token_path}
    before = {name: os.environ.get(name) for name in auth}
    os.environ.update(auth)
    ray = _ray()
    _reread_auth()
    dashboard_port = free_port() if dashboard else None
    try:
        context = ray.init(
            address="local",
            num_cpus=num_cpus or max(MIN_LOGICAL_CPUS, os.cpu_count() or 1),
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            dashboard_port=dashboard_port,
            object_store_memory=object_store_bytes or _default_object_store_bytes(),
            log_to_driver=log_to_driver,
            logging_level="ERROR",
            runtime_env=_code_env(),
            _temp_dir=folder,
        )
        url = f"http://127.0.0.1:{dashboard_port}" if dashboard else None
        address = str(context.address_info["gcs_address"])
        yield Session(address=address, dashboard_url=url, token_path=token_path)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def free_port() -> int:
    """A TCP port on the loopback address that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ray() -> Any:
    import ray

    return ray


def _reread_auth() -> None:
    """Ray reads RAY_AUTH_* once, at its import, which may have been before they were set."""
    raylet: Any = importlib.import_module("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _code_env() -> dict[str, dict[str, str]]:
    """Workers import the same `apps` as the driver, wherever they start."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(apps.__file__)))
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
    return {"env_vars": {"PYTHONPATH": path, **_ENV}}


def _default_object_store_bytes() -> int:
    return min(_MAX_OBJECT_STORE_BYTES, int(psutil.virtual_memory().total * 0.15))
