"""What a request has to pass before anything of its body is read: origin, size, key."""

import ipaddress
from collections.abc import Callable, Sequence

import orjson
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from apps.serve.admission.keys import KeyRing
from apps.serve.admission.peer import peer, without_port
from apps.serve.client import GOES_ON_HEADER
from apps.serve.config import GatewayConfig
from apps.serve.errors import ApiError
from apps.serve.gateway.account import Account

MAX_HEADER_BYTES = 64 << 10
BAD_KEYS_PER_MINUTE = 10
"""from one address; more are answered 429"""
_OPEN_PATHS = frozenset(
    {"/", "/ui", "/health", "/ready", "/entry", "/version", "/favicon.ico", "/manifest.json"}
)
_ADMIN_PATHS = frozenset({"/metrics"})


class Guard:
    """Puts the key's owner into the request's account."""

    def __init__(self, app: ASGIApp, settings: Callable[[], GatewayConfig]) -> None:
        self._app = app
        self._settings = settings
        self._keys = KeyRing(settings)
        self._bad_keys = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                await self._check(scope)
            except ApiError as error:
                Account.of(scope).refuse(error)
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _check(self, scope: Scope) -> None:
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size > MAX_HEADER_BYTES:
            raise ApiError(431, f"The headers are larger than {MAX_HEADER_BYTES:,} bytes.")
        path = scope["path"]
        if path in _OPEN_PATHS or self._settings().is_open:
            return
        owner = await self._keys.find(_given_key(scope))
        if owner is None:
            raise self._bad_key(client_address(scope, self._settings().trusted_proxies))
        if path in _ADMIN_PATHS and not owner.admin:
            raise ApiError(403, f"{path} takes an admin key; make one with `keys add --admin`.")
        Account.of(scope).owner = owner

    def _bad_key(self, address: str) -> ApiError:
        most = RateLimitItemPerMinute(BAD_KEYS_PER_MINUTE)
        if self._bad_keys.hit(most, address):
            return ApiError(401, "The API key is not valid.", code="invalid_api_key")
        return ApiError(
            429,
            f"More than {BAD_KEYS_PER_MINUTE} keys a minute that are not valid came from here.",
            code="too_many_invalid_keys",
            retry_after_s=60,
        )


def _given_key(scope: Scope) -> str:
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(given) > 1:
        raise ApiError(400, "There is more than one Authorization header; send one.")
    scheme, _, key = (given[0] if given else b"").decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise ApiError(
            401,
            "No API key was given; send the header 'Authorization: Bearer YOUR_KEY'.",
            code="missing_api_key",
        )
    return key


def client_address(scope: Scope, trusted: Sequence[str]) -> str:
    """Of the client, or of the last proxy that is not trusted.

    With 10.0.0.0/8 trusted, a request of 10.0.0.2 with `X-Forwarded-For: 1.1.1.1, 2.2.2.2,
    10.0.0.1` comes from 2.2.2.2: whatever stands before it may be made up.
    """
    address = peer(scope)
    headers = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    hops = [hop.strip() for hop in b",".join(headers).decode("latin-1").split(",") if hop.strip()]
    while hops and _is_in(address, trusted):
        address = without_port(hops.pop())
    return address


def _is_in(address: str, networks: Sequence[str]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in ipaddress.ip_network(network) for network in networks)


class Cors:
    """Lets the pages of `cors_origins` call, which may change while this runs."""

    def __init__(self, app: ASGIApp, settings: Callable[[], GatewayConfig]) -> None:
        self._app = self._with_origins = app
        self._settings = settings
        self._origins: tuple[str, ...] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origins = self._settings().cors_origins
        if origins != self._origins:
            self._origins = origins
            self._with_origins = CORSMiddleware(
                self._app,
                allow_origins=list(origins),
                allow_methods=["GET", "POST"],
                # Clients add headers of their own, as OpenAI's x-stainless-*: what a page asks for
                # is mirrored, the origins alone are restricted.
                allow_headers=["*"],
                expose_headers=["retry-after", "x-request-id", GOES_ON_HEADER],
            )
        await (self._with_origins if origins else self._app)(scope, receive, send)


def error_response(error: ApiError) -> Response:
    body = orjson.dumps(error.body())
    return Response(body, error.status, error.headers(), media_type="application/json")
