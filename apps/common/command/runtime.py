"""The one place that starts or joins Ray.

    with ray_session() as session:
        ...

`RAY_ADDRESS` set (inside `ray job submit`, or by the quickstart): join that cluster. Otherwise
start a local one: token authentication, a private folder for its sockets and logs, free ports, and
at least four logical CPUs, because on fewer a Train run that reads a dataset waits forever for the
CPU that its own workers hold. Only what was started here is stopped.

A machine that is busy starts Ray slowly: each of its own waits gets START_WAIT_S, and a start that
fails is tried once more. SIGTERM ends the block as Ctrl-C does, with exit code 143.

A local start goes without a runtime_env, because the workers that Ray has ready for its first job
have none and would be passed over, and without the processes that nobody would use.
"""

import contextlib
import dataclasses
import importlib
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Mapping
from types import FrameType
from typing import Any
from unittest import mock

import psutil

import apps
from apps.common.command import interrupt
from apps.common.errors import ConfigError, CriaError, first_line

MIN_LOGICAL_CPUS = 4
START_WAIT_S = 120
_TELL_AFTER_S = 20
_TERMINATED = 128 + signal.SIGTERM
_terminated = threading.Event()
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
_START_ENV = {
    "RAY_gcs_server_port_wait_time_s": str(START_WAIT_S),
    "RAY_raylet_start_wait_time_s": "2",  # one wait of many, see _ray_is_patient
    "RAY_agent_register_timeout_ms": str(1000 * START_WAIT_S),
    "RAY_worker_register_timeout_seconds": str(START_WAIT_S),
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(START_WAIT_S),
}
"""Ray's own waits while it starts, most of them 30 s otherwise."""


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
    imports: str = "",
) -> Generator[Session]:
    """Join the cluster of RAY_ADDRESS, or run a local one for the length of the block. `imports` is
    a module that the block needs and that takes long: it is imported while Ray starts."""
    for name, value in _ENV.items():
        os.environ.setdefault(name, value)
    with sigterm_ends_the_block():
        if os.environ.get("RAY_ADDRESS"):
            started = _joined(log_to_driver)
        else:
            started = _local(num_cpus, dashboard, object_store_bytes, log_to_driver, imports)
        with started as session:
            if _terminated.is_set():
                raise SystemExit(_TERMINATED)
            yield session


@contextlib.contextmanager
def _joined(log_to_driver: bool) -> Generator[Session]:
    ray = _ray()
    address = os.environ["RAY_ADDRESS"]
    if address.startswith(("http://", "https://")):
        raise ConfigError(
            f"RAY_ADDRESS is {address!r}, which takes jobs only. Start the command "
            "with `ray job submit --working-dir . -- python -m apps...`, or unset RAY_ADDRESS."
        )
    already = ray.is_initialized()
    if not already:
        in_job = bool(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"))
        with _ray_is_patient():
            try:
                ray.init(
                    address=address,
                    log_to_driver=log_to_driver,
                    logging_level="ERROR",
                    runtime_env=None if in_job else _code_env(),
                )
            except (ConnectionError, ray.exceptions.AuthenticationError) as error:
                raise ConfigError(
                    f"The Ray cluster that RAY_ADDRESS names, {address}, cannot be joined "
                    f"({first_line(error)}); start it, or unset RAY_ADDRESS."
                ) from error
    try:
        yield Session(address=address, dashboard_url=None, token_path=None)
    finally:
        if not already:
            ray.shutdown()


@contextlib.contextmanager
def _local(
    num_cpus: int | None,
    dashboard: bool,
    object_store_bytes: int | None,
    log_to_driver: bool,
    imports: str,
) -> Generator[Session]:
    for name, value in _START_ENV.items():
        os.environ.setdefault(name, value)
    options: dict[str, object] = {
        "num_cpus": num_cpus or max(MIN_LOGICAL_CPUS, os.cpu_count() or 1),
        "include_dashboard": dashboard,
        "dashboard_host": "127.0.0.1",
        "object_store_memory": object_store_bytes or _default_object_store_bytes(),
        "log_to_driver": log_to_driver,
        "logging_level": "ERROR",
    }
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_folder())
        if imports:
            _ray()  # which reads its settings once
            threading.Thread(target=importlib.import_module, args=(imports,), daemon=True).start()
        with _waits_are_told("Ray is still starting"):
            try:
                session = _start(folder, options)
            except Exception as error:
                _say(f"Ray did not start ({_first_sentence(error)}); it is tried once more.")
                folder = stack.enter_context(_folder())
                session = _start_again(folder, options)
        yield session


@contextlib.contextmanager
def _folder() -> Generator[str]:
    """A folder of its own for Ray, the token that protects it, and what all its processes inherit;
    at the end Ray is ended."""
    # Short, because the path of a Unix socket ends at 107 bytes.
    folder = tempfile.mkdtemp(prefix="cria-ray-", dir="/tmp")
    token_path = _token_path(folder)
    with open(os.open(token_path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as handle:
        handle.write(secrets.token_hex(32))
    inherited = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": token_path,
        "PYTHONPATH": _code_path(),
    }
    before = {name: os.environ.get(name) for name in inherited}
    os.environ.update(inherited)
    try:
        yield folder
    finally:
        _ray().shutdown()
        _kill_left_over(folder)
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _token_path(folder: str) -> str:
    return os.path.join(folder, "token")


def _start(folder: str, options: dict[str, object]) -> Session:
    ray = _ray()
    _reread_settings()
    port = free_port() if options["include_dashboard"] else None
    with _ray_is_patient(), _only_what_is_used(options):
        context = ray.init(address="local", dashboard_port=port, _temp_dir=folder, **options)
    return Session(
        address=str(context.address_info["gcs_address"]),
        dashboard_url=f"http://127.0.0.1:{port}" if port else None,
        token_path=_token_path(folder),
    )


def _start_again(folder: str, options: dict[str, object]) -> Session:
    _ray().shutdown()
    try:
        return _start(folder, options)
    except Exception as error:
        load = os.getloadavg()[0]
        raise CriaError(
            f"Ray did not start, twice: {_first_sentence(error)} The load of this machine is "
            f"{load:.0f} on {os.cpu_count()} CPUs and {_free_gib():.1f} GiB of memory are free; "
            "try again when it is less busy, or join a cluster with RAY_ADDRESS."
        ) from error


def _first_sentence(error: Exception) -> str:
    return first_line(error, 1000).split(". ")[0].rstrip(".") + "."


def _free_gib() -> float:
    return psutil.virtual_memory().available / (1 << 30)


def _kill_left_over(folder: str) -> None:
    """A start that failed leaves processes that nobody knows; they name their folder."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(folder in argument for argument in process.cmdline()):
                process.kill()


@contextlib.contextmanager
def _waits_are_told(what: str) -> Generator[None]:
    """On standard error, after 20 s and then every 20 s."""
    ended = threading.Event()
    began_s = time.monotonic()

    def tell() -> None:
        while not ended.wait(_TELL_AFTER_S):
            waited_s = time.monotonic() - began_s
            load = os.getloadavg()[0]
            _say(f"{what} after {waited_s:.0f} s; the load is {load:.0f} on {os.cpu_count()} CPUs.")

    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


@contextlib.contextmanager
def sigterm_ends_the_block() -> Generator[None]:
    """Where the command has no handler of its own; its children end with it.

    Native code that Ray's start runs through may swallow what the handler raises, as Python does
    around a fork. So it is also noted, and raised again once Ray has started.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # another one does not stop the cleaning up
        _terminated.set()
        raise SystemExit(_TERMINATED)

    signal.signal(signal.SIGTERM, end)
    tell, sys.unraisablehook = sys.unraisablehook, _tell_unless_terminated
    try:
        yield
    finally:
        sys.unraisablehook = tell
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _terminated.clear()


def _tell_unless_terminated(swallowed: Any) -> None:
    """Python tells of it in a traceback."""
    if not isinstance(swallowed.exc_value, SystemExit):
        sys.__unraisablehook__(swallowed)


@contextlib.contextmanager
def _ray_is_patient() -> Generator[None]:
    """While Ray starts, what no setting of Ray 2.60 changes.

    It would put in handlers of SIGTERM that end the process in the middle of what it does: one of
    Python, one of C++ that gives it three seconds. And it gives its node 30 s, in waits that no
    signal ends: here are many short ones instead.
    """
    utils = importlib.import_module("ray._private.utils")
    services = importlib.import_module("ray._private.services")
    get_node = services.get_node
    deadline_s = time.monotonic() + START_WAIT_S

    def patient(gcs_address: str, node_id: str) -> Any:
        while True:
            try:
                return get_node(gcs_address, node_id)
            except RuntimeError:
                if time.monotonic() > deadline_s:
                    raise

    def ignored(handler: object) -> None: ...

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(utils, "set_sigterm_handler", ignored))
        stack.enter_context(mock.patch.object(services, "get_node", patient))
        if threading.current_thread() is threading.main_thread():
            stack.callback(_put_back_handler, signal.SIGTERM)
        yield


@contextlib.contextmanager
def _only_what_is_used(options: Mapping[str, object]) -> Generator[None]:
    """What Ray 2.60 starts for nobody, a CPU second and 80 to 150 MB each: without a dashboard its
    server (for usage statistics, which are off here) and the autoscaler's monitor (of machines that
    there are none of), without logs on the terminal what collects them."""
    services = importlib.import_module("ray._private.services")
    node: Any = importlib.import_module("ray._private.node").Node

    def no_server(*_: object, **__: object) -> tuple[str, None]:
        return "", None  # its address and its process, as Ray has it where that did not start

    def nothing(*_: object, **__: object) -> None: ...

    with contextlib.ExitStack() as stack:
        if not options["include_dashboard"]:
            stack.enter_context(mock.patch.object(services, "start_api_server", no_server))
            stack.enter_context(mock.patch.object(node, "start_monitor", nothing))
            if not options["log_to_driver"]:
                stack.enter_context(mock.patch.object(node, "start_log_monitor", nothing))
        yield


def _put_back_handler(number: signal.Signals) -> None:
    """Of Python, in place of one that native code has put in since."""
    signal.signal(number, signal.getsignal(number))


def free_port() -> int:
    """A TCP port on the loopback address that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ray() -> Any:
    if "ray" in sys.modules:
        ray = importlib.import_module("ray")
    else:
        with interrupt.held_back():
            ray = importlib.import_module("ray")
    _keep_off_stdout()
    return ray


def _keep_off_stdout() -> None:
    """Ray tells of workers that died on standard output, which is for a command's own lines."""
    worker: Any = importlib.import_module("ray._private.worker")
    say = worker.print_to_stdstream
    if say.__module__ == __name__:  # it was changed before
        return

    def on_stderr(data: Mapping[str, object], ignore_prefix: bool) -> None:
        say({**data, "is_err": True}, ignore_prefix)

    worker.print_to_stdstream = on_stderr


def _reread_settings() -> None:
    """Ray reads RAY_* once, at its import, which may have been before they were set."""
    raylet: Any = importlib.import_module("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _code_env() -> dict[str, dict[str, str]]:
    """Workers of a cluster that was joined get what those of a local one inherit."""
    return {"env_vars": {"PYTHONPATH": _code_path(), **_ENV}}


def _code_path() -> str:
    """PYTHONPATH with which workers import the same `apps` as the driver, wherever they start."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(apps.__file__)))
    return os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)


def _default_object_store_bytes() -> int:
    return min(_MAX_OBJECT_STORE_BYTES, int(psutil.virtual_memory().total * 0.15))
