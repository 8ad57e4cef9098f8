"""Serve models behind the OpenAI API, with a web page.

    python -m apps.serve run CONFIG.yaml --port 8000
    python -m apps.serve run MODEL_FOLDER
    python -m apps.serve chat http://127.0.0.1:8000
    ray job submit -- python -m apps.serve run CONFIG.yaml
    python -m apps.serve place MODELS.yaml --gpus 16xA100-80GB --trace requests.csv > serve.yaml
    python -m apps.serve simulate --trace spot-traces --replicas 4
    python -m apps.serve keys add NAME --file keys.yaml
    python -m apps.serve join https://gateway --name POOL --url http://this-machine:8000/v1
    python -m apps.serve build CONFIG.yaml > serve.yaml && serve deploy serve.yaml

Reads one YAML (apps/serve/config.py describes it) and the model folders it names, or such folders.
"""

import apps.common.command.interrupt  # noqa: F401

# isort: split
import dataclasses
import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from tyro.conf import Positional

from apps.common.command import cli
from apps.common.command.events import Reporter
from apps.common.command.runtime import MIN_LOGICAL_CPUS, free_port, ray_session
from apps.common.errors import ConfigError, CriaError
from apps.common.files import config as configs
from apps.common.files import storage
from apps.common.files.endpoints import read_key
from apps.serve.admission.keys import digest
from apps.serve.admission.keys_file import read_keys
from apps.serve.applications import serve_config
from apps.serve.arena import ArenaConfig, arena
from apps.serve.chat import ChatConfig, chat
from apps.serve.config import ApiKey, GatewayConfig, ModelConfig, ServeConfig
from apps.serve.conversations import ConversationsConfig, conversations
from apps.serve.engine.config import RemoteConfig
from apps.serve.join import JoinConfig, join
from apps.serve.keys import KeysConfig, keys
from apps.serve.model.served import load_model
from apps.serve.page.arena.sources import check_sources
from apps.serve.page.config import PageConfig, check_folder, check_secrets, database_url
from apps.serve.placing import PlaceConfig, place
from apps.serve.simulate import SimulateConfig, run_simulate
from apps.serve.votes import VotesConfig, votes

_WATCH_S = 1.0
_HERE = "serve.yaml"
"""Where there is no file: what would lie beside one lies in the working directory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Serve until Ctrl-C. Changes to a YAML file are applied while it runs."""

    what: Positional[tuple[str, ...]]
    """YAML file with the models; or model folders, each as FOLDER or NAME=FOLDER, for our own
    engine with all other settings as they are by default"""
    port: int | None = None
    """port of the API and the page; 0 takes a free one (default: gateway.port of the file, or
    8000)"""
    start_timeout_s: float = 600.0
    """give up when not everything is up after this long"""

    def __post_init__(self) -> None:
        configs.above_zero(self, "", "start_timeout_s")

    @property
    def file(self) -> str:
        """The YAML; "": there is none. Raises ConfigError."""
        if not self.what:
            raise ConfigError("There is nothing to serve; give a YAML file, or model folders.")
        files = [one for one in self.what if not storage.is_dir(_named(one)[1])]
        if files and len(self.what) > 1:
            raise ConfigError(
                f"{files[0]} is no model folder; give one YAML file, or folders that exist."
            )
        return files[0] if files else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildConfig:
    """Print the configuration for `serve deploy`."""

    file: Positional[str]
    """YAML file with the models"""


def _named(folder: str) -> tuple[str, str]:
    """NAME=FOLDER, or the folder with its own name."""
    name, equals, path = folder.partition("=")
    if equals and not storage.is_dir(folder):
        return name, path
    return os.path.basename(storage.absolute(folder).rstrip("/")), folder


def run(settings: RunConfig, reporter: Reporter) -> None:
    config = _load_to_run(settings)
    if not os.environ.get("RAY_ADDRESS"):
        _check_port_free(config.gateway.host, config.gateway.port)
    start_s = time.monotonic()
    wanted_cpus = sum(m.resources.cpus * m.most_replicas for m in config.models)
    cpus = max(MIN_LOGICAL_CPUS, os.cpu_count() or 1, int(wanted_cpus) + 2)
    try:
        with ray_session(num_cpus=cpus, imports="apps.serve.launch") as session:
            from apps.serve import launch

            config = launch.with_entries(config)
            launch.check_fits(config)
            try:
                with launch.serving(config, reporter, settings.start_timeout_s):
                    signal.signal(signal.SIGTERM, signal.default_int_handler)
                    took_s = round(time.monotonic() - start_s, 1)
                    reporter.event("serve.ready", **_addresses(config), seconds=took_s)
                    if settings.file:
                        _follow_file(settings, config, reporter)
                    threading.Event().wait()
            except KeyboardInterrupt:
                reporter.event("serve.stopped", ray=session.address)
    except SystemExit:  # SIGTERM, while it started
        reporter.event("serve.stopped")


def _check_port_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        reason = (error.strerror or "no reason given").split(" (")[0]
        # Names that lead nowhere have numbers of their own, below zero (getaddrinfo).
        is_foreign = error.errno == errno.EADDRNOTAVAIL or (error.errno or 0) < 0
        mend = (
            "set gateway.host to an address of this machine, or to 0.0.0.0 for all of them."
            if is_foreign
            else "stop what listens there, or choose another with --port (0 takes a free one)."
        )
        raise ConfigError(f"Cannot listen on {host}:{port} ({reason}); {mend}") from error


def _follow_file(settings: RunConfig, config: ServeConfig, reporter: Reporter) -> None:
    """Apply the file again whenever it changes, until interrupted."""
    from apps.serve import launch

    file = settings.file  # once: whether it is a folder costs a bucket's answer
    seen = _stamp(file)
    while True:
        time.sleep(_WATCH_S)
        if (stamp := _stamp(file)) == seen:
            continue
        seen = stamp
        try:
            asked = dataclasses.replace(settings, port=config.gateway.port)
            changed = launch.with_entries(_load_to_run(asked))
            _check_stays(settings, config.gateway)
            launch.check_fits(changed)
            config = changed
            launch.apply(config)
            launch.wait_until_running(config, reporter, settings.start_timeout_s)
            reporter.event("serve.applied", models=[m.name for m in config.models])
        except (CriaError, OSError) as error:
            reporter.event("serve.refused", reason=str(error))


def _check_stays(settings: RunConfig, running: GatewayConfig) -> None:
    """Raises ConfigError for what is read once, at the start."""
    asked = configs.load(ServeConfig, settings.file).gateway
    is_elsewhere = settings.port is None and asked.port not in (0, running.port)
    for name, is_changed in (
        ("host", asked.host != running.host),
        ("port", is_elsewhere),
        ("limits_url", asked.limits_url != running.limits_url),
    ):
        if is_changed:
            raise ConfigError(
                f"gateway.{name} cannot change while the service runs; start it again, or put "
                "back what it was."
            )


def build(settings: BuildConfig, reporter: Reporter) -> None:
    yaml.safe_dump(serve_config(load(settings.file, None)), sys.stdout, sort_keys=False)


def load(path: str, port: int | None) -> ServeConfig:
    """The checked file: paths absolute, the port chosen, every model's text side readable."""
    if storage.is_dir(path):
        raise ConfigError(
            f"{path} is a folder; expected a YAML file that lists it, such as "
            f"models: [{{name: mine, path: {path}}}]."
        )
    return _checked(configs.load(ServeConfig, path), path, port)


def _of_folders(folders: Sequence[str]) -> ServeConfig:
    named = [_named(folder) for folder in folders]
    return ServeConfig(models=tuple(ModelConfig(name=name, path=path) for name, path in named))


def _checked(config: ServeConfig, path: str, port: int | None) -> ServeConfig:
    """`path` is the file's, beside which relative paths lie."""
    gateway = config.gateway
    chosen = gateway.port if port is None else port
    keys_file = _beside(path, gateway.keys_file) if gateway.keys_file else ""
    from_file = read_keys(keys_file) if keys_file else ()  # refuses a wrong one
    _check_page_key(config.page, (*gateway.api_keys, *from_file))
    gateway = dataclasses.replace(gateway, port=chosen or free_port(), keys_file=keys_file)
    models = tuple(_resolved(model, path) for model in config.models)
    for model in models:
        if model.is_local:
            load_model(model)
    shown = config.page.evaluation
    evaluation = _beside(path, shown) if shown else ""
    sources = {model: _beside(path, file) for model, file in config.page.sources.items()}
    check_sources(sources, {model.name: model.path for model in models})
    page = dataclasses.replace(config.page, evaluation=evaluation, sources=sources)
    if not page.database_url_env:
        page = dataclasses.replace(page, database_url=_database_url(page.database_url, path))
    return dataclasses.replace(config, gateway=gateway, models=models, page=page)


def _load_to_run(settings: RunConfig) -> ServeConfig:
    """As `load`; what the environment must hold is here: a replica would say it too late.

    On a cluster that runs already, the machines of the page and the gateways hold it, not this one.
    """
    if settings.file:
        config = load(settings.file, settings.port)
    else:
        config = _checked(_of_folders(settings.what), _HERE, settings.port)
    if os.environ.get("RAY_ADDRESS"):
        return config
    keys_file = config.gateway.keys_file
    if keys_file and not storage.exists(keys_file):
        raise ConfigError(
            f"gateway.keys_file is {keys_file}, which does not exist; make it with "
            f"`python -m apps.serve keys add NAME --file {keys_file}`."
        )
    if config.page.enabled:
        check_secrets(config.page, needs_key=config.page_needs_key)
        check_folder(database_url(config.page))
        _check_page_has_a_key(config)
    for model in config.models:
        engine = model.engine_config(model.path)
        if isinstance(engine, RemoteConfig):
            _check_remote_key(model.name, engine)
    return config


def _check_remote_key(name: str, settings: RemoteConfig) -> None:
    from apps.serve.engine import remote

    try:
        remote.key_of(settings)
    except ConfigError as error:
        raise ConfigError(f"Model {name!r}: {error}.") from error


def _check_page_key(page: PageConfig, keys: Sequence[ApiKey]) -> None:
    """Whoever opens a page without a login asks with its key; one without limits is everybody's."""
    secret = read_key(page.api_key_env)
    if not page.enabled or not secret or page.login_password_env or page.login_header:
        return
    for key in keys:
        if key.sha256 == digest(secret) and not key.has_limits:
            raise ConfigError(
                f"The page is open to everybody, and its key {key.name!r} has no limits; give it a "
                "key of its own with `python -m apps.serve keys add page --requests-per-minute "
                "600`, or give the page a login."
            )


def _check_page_has_a_key(config: ServeConfig) -> None:
    """Else its visitors would wait for models that never come."""
    secret, gateway = read_key(config.page.api_key_env), config.gateway
    from_file = read_keys(gateway.keys_file) if gateway.keys_file else ()
    keys = (*gateway.api_keys, *from_file)
    good = {key.sha256 for key in keys if key.holds_at(time.time())}
    if secret and keys and digest(secret) not in good:
        raise ConfigError(
            f"page.api_key_env names {config.page.api_key_env}, which holds none of the keys here; "
            "put one there, as `python -m apps.serve keys add page --requests-per-minute 600` "
            "prints it."
        )


def _resolved(model: ModelConfig, config_path: str) -> ModelConfig:
    """Its folder beside the file, or where the command was started; the service runs elsewhere."""
    if not model.path or not storage.is_local(model.path):
        return model
    for path in (_beside(config_path, model.path), model.path):
        if storage.is_dir(path):
            return dataclasses.replace(model, path=storage.absolute(path))
    return model


def _beside(config_path: str, path: str) -> str:
    """A path of the file is meant from the file's folder; the service runs in another one."""
    is_relative = storage.is_local(path) and not path.startswith(("/", "~", "file://"))
    file = storage.local_path(config_path) if storage.is_local(config_path) else ""
    folder = os.path.abspath(os.path.dirname(file) or ".")
    return os.path.join(folder, path) if is_relative else path


def _database_url(url: str, config_path: str) -> str:
    """A file of SQLite lies beside the file that names it, as all that is relative there."""
    scheme, _, path = (url or "sqlite:///page.db").partition(":///")
    is_file = scheme.startswith("sqlite") and path not in ("", ":memory:")
    return f"{scheme}:///{_beside(config_path, path)}" if is_file else url


def _addresses(config: ServeConfig) -> dict[str, Any]:
    base = config.gateway.url_here
    page = {"page": f"{base}/ui"} if config.page.enabled else {}
    return {"api": f"{base}/v1", **page, "models": [m.name for m in config.models]}


def _stamp(path: str) -> tuple[int, int]:
    """Changes with the file; a file in a bucket is read once."""
    if not storage.is_local(path):
        return (0, 0)
    try:
        found = os.stat(storage.local_path(path))
    except OSError:  # an editor takes the old file away before it puts the new one there
        return (0, 0)
    return found.st_mtime_ns, found.st_size


COMMANDS = {
    "run": cli.Command(
        config=RunConfig,
        run=run,
        help="serve models until Ctrl-C",
        example="serve.yaml --port 8000",
    ),
    "build": cli.Command(
        config=BuildConfig,
        run=build,
        help="print the configuration for `serve deploy`",
        example="serve.yaml",
    ),
    "simulate": cli.Command(
        config=SimulateConfig,
        run=run_simulate,
        help="what a service on spot machines costs, and how often it is short",
        example="--trace spot-traces --replicas 4",
    ),
    "place": cli.Command(
        config=PlaceConfig,
        run=place,
        help="choose which model runs on which GPUs, and print that as YAML",
        example="models.yaml --gpus 16xA100-80GB --slo ttft=2s,tpot=80ms",
    ),
    "keys": cli.Command(
        config=KeysConfig,
        run=keys,
        help="add, list, revoke or rotate the API's keys",
        example="add ali --file keys.yaml --requests-per-minute 60",
    ),
    "join": cli.Command(
        config=JoinConfig,
        run=join,
        help="bring a server on this machine into a gateway's pool",
        example="https://chat.example.org --name vicuna --url http://10.0.0.7:8000/v1",
    ),
    "chat": cli.Command(
        config=ChatConfig,
        run=chat,
        help="talk to a served model in the terminal",
        example="http://127.0.0.1:8000 --model vicuna",
    ),
    "votes": cli.Command(
        config=VotesConfig,
        run=votes,
        help="export the page's votes or preference pairs, or rate the models by them",
        example="export page.db --out votes.jsonl",
    ),
    "conversations": cli.Command(
        config=ConversationsConfig,
        run=conversations,
        help="export the page's conversations as a ShareGPT dump, or forget a visitor's",
        example="export page.db --out dump.jsonl",
    ),
    "arena": cli.Command(
        config=ArenaConfig,
        run=arena,
        help="check that nobody has changed the arena's past",
        example="verify page.db",
    ),
}

if __name__ == "__main__":
    sys.exit(cli.run("apps.serve", COMMANDS))
