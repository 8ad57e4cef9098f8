"""Bring a server on this machine into a pool of a gateway elsewhere.

    export CRIA_JOIN_TOKEN=sk-cria-...     # `keys add NAME --may-join POOL`, at the gateway
    python -m apps.serve join https://chat.example.org --name vicuna --url http://10.0.0.7:8000/v1

The server is one that runs already: `python -m apps.serve run`, vLLM, anything that speaks OpenAI's
API. Once a second this command says that it is there, as long as it is well. Ctrl-C and SIGTERM end
that: the pool sends nothing new, and the command waits for what is under way. docs/pool.md has the
contract, for those who build on it.
"""

import signal
import socket
import threading
import time
from dataclasses import dataclass
from types import FrameType
from urllib.parse import quote, urlsplit

import httpx
from tyro.conf import Positional

from apps.common.command.events import Reporter
from apps.common.errors import ConfigError
from apps.common.files.endpoints import read_key

BEAT_S = 1.0
_TIMEOUT_S = 5.0
_REFUSED = (400, 401, 403, 404)


def is_ours(response: httpx.Response) -> bool:
    """The gateway's own words; Ray's proxy says 404 in plain text while the gateway starts."""
    return response.headers.get("content-type", "").startswith("application/json")


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinConfig:
    """Join a pool and stay in it until Ctrl-C."""

    gateway: Positional[str]
    """address of the gateway, such as https://chat.example.org"""
    name: str
    """the pool's name there"""
    url: str = ""
    """address of the OpenAI API to bring, as the gateway reaches it (default: port 8000 of this
    machine's address on the way to the gateway)"""
    model: str = ""
    """the model's name at that API (default: its only one)"""
    worker: str = ""
    """id of this worker (default: host and port of url)"""
    token_env: str = "CRIA_JOIN_TOKEN"
    """environment variable with the key that may join"""
    key_env: str = ""
    """environment variable with the key that the gateway is to use at url"""
    weight: float = 1.0
    """its share, beside the pool's other back ends"""
    continues: bool = True
    """the server takes continue_final_message, as vLLM, SGLang and this one do"""
    drain_s: float = 60.0
    """how long to wait for requests under way before leaving"""

    def __post_init__(self) -> None:
        for name in ("gateway", "url"):
            value = getattr(self, name)
            if value and not value.startswith(("http://", "https://")):
                raise ConfigError(f"{name} is {value!r}; it must begin with http:// or https://.")
            try:
                address = urlsplit(value)
                names_a_host = not value or bool(address.hostname and address.port != 0)
            except ValueError:
                names_a_host = False
            if not names_a_host:
                raise ConfigError(f"{name} is {value!r}, which names no host; check the address.")
        if not (self.weight > 0 and self.drain_s >= 0):
            raise ConfigError("weight must be above 0, and drain_s not below.")


def join(settings: JoinConfig, reporter: Reporter) -> None:
    ends = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ends.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with httpx.Client(timeout=_TIMEOUT_S) as http:
        worker = _Worker(settings, http)
        worker.check()
        told: str | None = None
        while not ends.wait(0 if told is None else BEAT_S):
            why = worker.beat(leaves=False)
            if why != told:
                told = why
                reporter.event("serve.join_waits" if why else "serve.joined", **worker.shown(why))
        worker.leave(reporter)


class _Worker:
    def __init__(self, settings: JoinConfig, http: httpx.Client) -> None:
        self._settings, self._http = settings, http
        self._token = _from_env(settings.token_env, "the key that may join")
        self._key = _from_env(settings.key_env, "the server's key") if settings.key_env else ""
        self._url = (settings.url or _own_address(settings.gateway)).rstrip("/")
        self._health_url = self._url.removesuffix("/v1") + "/health"
        self._id = settings.worker or urlsplit(self._url).netloc
        self._model = settings.model
        self._running = 0
        self._is_taken = False
        """its id, by a worker at another address"""
        path = f"pools/{quote(settings.name, safe='')}/workers/{quote(self._id, safe='')}"
        self._place = f"{settings.gateway.rstrip('/')}/{path}"

    def check(self) -> None:
        """Finds the model. Raises ConfigError where the server does not have it."""
        hint = "start the server first, or name it with --url"
        self._model = find_model(self._http, self._url, self._key, self._model, hint)

    def beat(self, leaves: bool) -> str:
        """Announce it; why it is not in, if it is not. Raises ConfigError for what no waiting
        mends."""
        try:
            self._http.get(self._health_url).raise_for_status()
        except httpx.HTTPError as error:
            return f"the server is not well ({type(error).__name__})"
        try:
            response = self._http.put(
                self._place,
                headers=_bearer(self._token),
                json={
                    "base_url": self._url,
                    "model": self._model,
                    "health_url": self._health_url,
                    "api_key": self._key,
                    "weight": self._settings.weight,
                    "continues": self._settings.continues,
                    "leaves": leaves,
                },
            )
        except httpx.HTTPError as error:
            return f"the gateway is out of reach ({type(error).__name__})"
        self._is_taken = response.status_code == 409
        if response.status_code in _REFUSED and is_ours(response):
            raise ConfigError(f"The gateway refuses this worker: {message_of(response)}")
        if response.status_code != 200:
            return f"the gateway says: {message_of(response)}"
        try:
            self._running = response.json()["running"]
        except (ValueError, KeyError, TypeError):
            return "the answer is no gateway's; check its address"
        return ""

    def leave(self, reporter: Reporter) -> None:
        """Wait for what is under way, then go."""
        until_s = time.monotonic() + self._settings.drain_s
        while self.beat(leaves=True) == "" and self._running and time.monotonic() < until_s:
            time.sleep(BEAT_S)
        try:
            if self._is_taken:
                return
            self._http.delete(self._place, headers=_bearer(self._token))
        except httpx.HTTPError:
            return  # it notices that nothing comes any more
        finally:
            reporter.event("serve.left", **self.shown(""))

    def shown(self, why: str) -> dict[str, str]:
        told = {"pool": self._settings.name, "worker": self._id, "url": self._url}
        return {**told, "reason": why} if why else told


def find_model(http: httpx.Client, url: str, key: str, wanted: str, hint: str) -> str:
    """The model of that name or alias at an OpenAI API, or its only one. Raises ConfigError."""
    try:
        response = http.get(f"{url}/models", headers=_bearer(key))
        models = response.raise_for_status().json()["data"]
        names = [str(model["id"]) for model in models]
        aliases = [alias for model in models for alias in model.get("aliases") or ()]
    except httpx.HTTPStatusError as error:
        raise ConfigError(f"{url}/models says: {message_of(error.response)}") from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{url}/models does not list models ({type(error).__name__}); {hint}."
        ) from error
    if not wanted and len(names) == 1:
        return names[0]
    if wanted not in (*names, *aliases):
        if not names:
            raise ConfigError(f"{url} has no model that is up yet; try again when it is ready.")
        but = f", not {wanted!r}" if wanted else ""
        raise ConfigError(f"{url} has the models {', '.join(names)}{but}; choose one with --model.")
    return wanted


def _from_env(name: str, what: str) -> str:
    key = read_key(name)
    if key is None:
        raise ConfigError(f"{name} is not set; export {what} in it, or name another variable.")
    return key


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def _own_address(gateway: str) -> str:
    """Of the interface on the way to the gateway; nothing is sent."""
    host = urlsplit(gateway).hostname or ""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))
            return f"http://{probe.getsockname()[0]}:8000/v1"
    except OSError as error:
        raise ConfigError(f"There is no way to {host!r} ({error}); check the address.") from error


def message_of(response: httpx.Response) -> str:
    """Why it was refused, whoever refused it."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {response.status_code}."
