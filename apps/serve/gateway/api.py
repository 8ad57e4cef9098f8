"""The OpenAI API as a FastAPI application over a directory of models.

`build_api(directory, settings)` runs anywhere: behind Ray Serve (deployment.py) or in a test, with
an engine in the same process.
"""

import asyncio
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response

from apps.common.version import VERSION
from apps.serve.admission.peer import as_ipv4
from apps.serve.answer.position import Position
from apps.serve.config import GatewayConfig
from apps.serve.engine.protocol import RequestError
from apps.serve.errors import ApiError
from apps.serve.gateway import metrics as prometheus
from apps.serve.gateway.account import Account, Accounted
from apps.serve.gateway.body import read_body, request_schema
from apps.serve.gateway.forward import ForwardedAnswer
from apps.serve.gateway.guard import Cors, Guard, error_response
from apps.serve.gateway.joining import add_joining
from apps.serve.gateway.limits import KeyLimits
from apps.serve.gateway.metrics import GatewayMetrics
from apps.serve.gateway.plan import Plan, chat_plan, completion_plan
from apps.serve.gateway.pooled import PooledAnswer
from apps.serve.gateway.respond import Answer, api_error, json_response
from apps.serve.model.directory import AnyEntry, Directory, find, may_use
from apps.serve.model.entry import Entry, RemoteEntry
from apps.serve.model.pool import PoolEntry
from apps.serve.request.prompts import tokenize
from apps.serve.request.schemas import ChatRequest, CompletionRequest, TokenizeRequest

P = ParamSpec("P")
T = TypeVar("T")
B = TypeVar("B", ChatRequest, CompletionRequest)

_LONG_BYTES = 16 << 10
_NOT_HERE = {
    "/v1/embeddings": "The models here write text and make no embeddings; ask a server that has an "
    "embedding model.",
    "/v1/responses": "OpenAI's Responses API is not served here; ask /v1/chat/completions.",
}
_BY_NAME = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/models"})
_NO_PAGE = (
    "There is no web page here: page.enabled is false in serve.yaml, or the page is starting. "
    "OpenAI's API is at /v1; /v1/models lists the models."
)
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" '
    'rx="9" fill="#cf5f38"/><path d="M21 12.5a6 6 0 1 0 0 7" fill="none" stroke="#fff" '
    'stroke-width="3.5" stroke-linecap="round"/></svg>'
)


def build_api(
    directory: Directory,
    settings: Callable[[], GatewayConfig],
    metrics: GatewayMetrics,
    limits: KeyLimits,
) -> FastAPI:
    """`settings` is read at every request, so that a changed file holds at once."""
    api = FastAPI(
        title="Cria",
        version=VERSION,
        description="OpenAI-compatible chat and text completions.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        middleware=[
            Middleware(Accounted, metrics=metrics),
            Middleware(Cors, settings=settings),
            Middleware(Guard, settings=settings),
        ],
    )
    _add_generation(api, directory, settings, limits)
    add_joining(api, directory, settings)
    _add_models(api, directory)
    _add_operations(api, directory, settings, metrics)
    api.add_exception_handler(ApiError, _on_api_error)
    api.add_exception_handler(RequestError, _on_api_error)
    api.add_exception_handler(HTTPException, _on_http_error)
    api.add_exception_handler(Exception, _on_bug)
    return api


def _add_generation(
    api: FastAPI,
    directory: Directory,
    settings: Callable[[], GatewayConfig],
    limits: KeyLimits,
) -> None:
    def add(
        path: str,
        name: str,
        schema: type[B],
        make_plan: Callable[[B, Entry, Position | None], Plan],
    ) -> None:
        @api.post(path, name=name, openapi_extra=request_schema(schema))
        async def answer(request: Request) -> Response:
            account = Account.of(request.scope)
            body = await read_body(request, schema, settings())
            entry = find(directory, body.model, account.owner)
            if isinstance(entry, RemoteEntry):
                await account.admit(limits, 0)
                return ForwardedAnswer(account, body, entry)
            if isinstance(entry, PoolEntry):
                await account.admit(limits, 0)
                return PooledAnswer(account, body, entry)
            after = Position.read(request.headers.get("last-event-id"))
            plan = await _computed(request, make_plan, body, entry, after)
            await account.admit(limits, plan.prompt_tokens)
            return Answer(account, plan.owned_by(account.key), entry)

    add("/v1/chat/completions", "chat_completions", ChatRequest, chat_plan)
    add("/v1/completions", "completions", CompletionRequest, completion_plan)

    @api.post("/tokenize", openapi_extra=request_schema(TokenizeRequest))
    async def tokenize_text(request: Request) -> Response:
        account = Account.of(request.scope)
        body = await read_body(request, TokenizeRequest, settings())
        entry = find(directory, body.model, account.owner)
        if not isinstance(entry, Entry):
            raise ApiError(400, f"{body.model!r} runs elsewhere; its tokens are not known here.")
        await account.admit(limits, 0)
        return json_response(await _computed(request, tokenize, body, entry.model))


async def _computed(request: Request, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """fn(*args), in a thread when the body is long: tokenizing it would hold up every stream."""
    if int(request.headers.get("content-length", _LONG_BYTES)) < _LONG_BYTES:
        return fn(*args, **kwargs)
    return await asyncio.to_thread(fn, *args, **kwargs)


def _add_models(api: FastAPI, directory: Directory) -> None:
    @api.get("/v1/models")
    async def list_models(request: Request) -> Response:
        ready, owner = await directory.ready(), Account.of(request.scope).owner
        entries = directory.entries.items()
        live = [entry for n, entry in entries if ready.get(n) and may_use(owner, entry)]
        return json_response({"object": "list", "data": [_model_body(entry) for entry in live]})

    @api.get("/v1/models/{name:path}")
    async def retrieve_model(request: Request, name: str) -> Response:
        owner = Account.of(request.scope).owner
        return json_response(_model_body(find(directory, name, owner)))


def _add_operations(
    api: FastAPI,
    directory: Directory,
    settings: Callable[[], GatewayConfig],
    metrics: GatewayMetrics,
) -> None:
    @api.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/ui/")

    @api.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(_ICON, media_type="image/svg+xml")

    @api.get("/manifest.json", include_in_schema=False)
    async def manifest() -> Response:
        return json_response({"name": "Cria", "start_url": "/ui/", "display": "standalone"})

    @api.get("/health")
    async def health() -> Response:
        return json_response({"status": "ok"})

    @api.get("/ready")
    async def ready() -> Response:
        models = dict(await directory.ready())
        up = bool(models) and all(models.values())
        # Whoever has no key learns no names where keys are asked for.
        told = {"models": models} if settings().is_open else {}
        return json_response({"ready": up, **told}, 200 if up else 503)

    @api.get("/entry")
    async def entry(request: Request) -> Response:
        """For a load balancer: Serve listens on every machine with a replica, and a client that
        came in through a spot machine is cut off with it."""
        address, _ = request.scope.get("server") or ("", 0)
        is_stable = as_ipv4(address) not in await directory.spot_addresses()
        return json_response({"stable": is_stable}, 200 if is_stable else 503)

    @api.get("/version")
    async def version() -> Response:
        return json_response({"version": VERSION})

    @api.get("/metrics")
    async def scrape() -> Response:
        gateways, engines = await asyncio.gather(
            directory.gateway_samples(), directory.engine_metrics()
        )
        entries = directory.entries
        pools = {name: e.num_up for name, e in entries.items() if isinstance(e, PoolEntry)}
        text = prometheus.render(gateways or [metrics.samples()], engines, pools)
        return Response(text, media_type=prometheus.CONTENT_TYPE)


def _model_body(entry: AnyEntry) -> dict[str, Any]:
    model = entry.model if isinstance(entry, Entry) else None
    prices = entry.config.prices
    return {
        "id": entry.config.name,
        "object": "model",
        "created": model.created if model else 0,
        "owned_by": "remote" if isinstance(entry, RemoteEntry) else "cria",
        "aliases": list(entry.config.aliases),
        "context_tokens": model.context_tokens if model else None,
        "supports_tools": model.shows_tools if model else None,
        "prices": {
            "input_usd_per_million_tokens": prices.input_usd_per_million_tokens,
            "output_usd_per_million_tokens": prices.output_usd_per_million_tokens,
        },
    }


async def _on_api_error(request: Request, error: Exception) -> Response:
    told = api_error(error)
    Account.of(request.scope).refuse(told)
    return error_response(told)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    messages = {
        404: _nothing_at(request.method, path),
        405: f"{path[:200]} does not take {request.method}.",
    }
    message = messages.get(error.status_code, str(error.detail))
    response = error_response(ApiError(error.status_code, message))
    response.headers.update(dict(error.headers or {}))
    return response


def _nothing_at(method: str, path: str) -> str:
    if path == "/ui" or path.startswith("/ui/"):  # which is the page's own where there is one
        return _NO_PAGE
    if path in _NOT_HERE:
        return _NOT_HERE[path]
    meant = _BY_NAME & {f"/v1{path}", path.removeprefix("/v1")}
    hint = f" {min(meant)} is: a client's base URL ends in /v1, once." if meant else ""
    return f"There is no {method} {path[:200]} here.{hint}"


async def _on_bug(request: Request, error: Exception) -> Response:
    return error_response(ApiError(500, f"The server failed ({type(error).__name__})."))
