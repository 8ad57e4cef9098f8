"""What is counted of one request: once, whatever its end.

A request that is cancelled may be cancelled again while it cleans up, at any await. So nothing here
waits: what was used is noted as it comes, and counted in a `finally` that has no await before it.
"""

import contextlib
import time
from collections.abc import Generator

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.serve.answer.choices import Usage
from apps.serve.config import ApiKey, ModelConfig, Prices
from apps.serve.errors import ApiError, kind_of
from apps.serve.gateway.limits import KeyLimits
from apps.serve.gateway.metrics import GatewayMetrics

CLIENT_LEFT = 499
_SCOPE_KEY = "cria.account"
_ENDPOINTS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/tokenize": "tokenize",
    "/v1/models": "models",
}
_UNCOUNTED = frozenset({"/health", "/ready", "/entry", "/metrics"})
"""What machines ask for all the time."""


class Account:
    """One HTTP request."""

    def __init__(self, metrics: GatewayMetrics, endpoint: str) -> None:
        self.endpoint = endpoint
        self.start_s = time.monotonic()
        self.owner: ApiKey | None = None
        """of the key it came with"""
        self.usage = Usage(0)
        self._usd_elsewhere = 0.0
        self._metrics = metrics
        self._limits: KeyLimits | None = None
        self._charged_tokens = 0
        self._model: ModelConfig | None = None
        self._status = CLIENT_LEFT
        self._num_waits = 0
        self._failure = 0
        self._cause = ""
        self._is_whole = False

    @property
    def key(self) -> str:
        return self.owner.name if self.owner is not None else ""

    @classmethod
    def of(cls, scope: Scope) -> "Account":
        return scope[_SCOPE_KEY]

    async def admit(self, limits: KeyLimits, prompt_tokens: int) -> None:
        """Raises ApiError 429 where the key's limits do not allow it."""
        if await limits.admit(self.owner, prompt_tokens):
            self._limits, self._charged_tokens = limits, prompt_tokens

    def begin(self, model: ModelConfig) -> None:
        """It is a request to this model, and runs."""
        self._model = model
        self._metrics.in_flight.labels(model.name, self.key).inc()

    def first_token(self) -> None:
        assert self._model is not None
        waited_s = time.monotonic() - self.start_s
        self._metrics.first_token_s.labels(self._model.name).observe(waited_s)

    def spend(self, usage: Usage, prices: Prices) -> None:
        """Used at a back end that has prices of its own."""
        self.usage.prompt_tokens += usage.prompt_tokens
        self.usage.completion_tokens += usage.completion_tokens
        self.usage.cached_tokens += usage.cached_tokens
        self._usd_elsewhere += prices.usd(usage.prompt_tokens, usage.completion_tokens)

    @contextlib.contextmanager
    def waiting(self) -> Generator[None]:
        """For its turn at the model; the choices of one request may wait side by side."""
        assert self._model is not None
        gauge = self._metrics.waiting.labels(self._model.name)
        self._num_waits += 1
        if self._num_waits == 1:
            gauge.inc()
        try:
            yield
        finally:
            self._num_waits -= 1
            if self._num_waits == 0:
                gauge.dec()

    def refuse(self, error: ApiError) -> None:
        """The client is told this instead of an answer."""
        self._cause = error.cause

    def fail(self, error: ApiError) -> None:
        """Though a status line may have been sent that said otherwise."""
        self._failure, self._cause = error.status, error.cause

    def see(self, message: Message) -> None:
        """What is sent to the client."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif message["type"] == "http.response.body":
            self._is_whole = not message.get("more_body", False)

    def end(self) -> None:
        status = self._failure or (self._status if self._is_whole else CLIENT_LEFT)
        model = self._model
        if model is not None:
            self._metrics.in_flight.labels(model.name, self.key).dec()
            self._metrics.count_usage(model.name, self.key, self.usage, self._usd(model))
            seconds = time.monotonic() - self.start_s
            self._metrics.request_s.labels(model.name).observe(seconds)
        self._charge()
        name = model.name if model is not None else ""
        self._metrics.requests.labels(name, self.endpoint, str(status), self.key).inc()
        if status >= 400:
            self._metrics.failures.labels(name, self._cause_of(status)).inc()

    def _cause_of(self, status: int) -> str:
        return "client_left" if status == CLIENT_LEFT else self._cause or kind_of(status)

    def _charge(self) -> None:
        if self._limits is None or self.owner is None:
            return
        # A resumed answer's prompt is charged at its admission and is no part of its usage.
        more_prompt = max(0, self.usage.prompt_tokens - self._charged_tokens)
        usd = self._usd(self._model) if self._model is not None else 0.0
        self._limits.end(self.owner, more_prompt + self.usage.completion_tokens, usd)
        if self.owner.usd_per_day is not None:
            self._metrics.budget_days.labels(self.key).inc(usd / self.owner.usd_per_day)

    def _usd(self, model: ModelConfig) -> float:
        used = self.usage
        return self._usd_elsewhere + model.prices.usd(used.prompt_tokens, used.completion_tokens)


class Accounted:
    """The outermost layer: gives every request its account and closes it."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # With or without a slash at its end: a redirect would not know which scheme a proxy took.
        path = scope["path"].rstrip("/") or "/"
        account = Account(self._metrics, _ENDPOINTS.get(path, "other"))
        scope = {**scope, "path": path, _SCOPE_KEY: account}
        if scope["method"] == "HEAD":  # the server that sends the answer drops its body
            scope["method"] = "GET"

        async def watched(message: Message) -> None:
            await send(message)
            account.see(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            account.fail(ApiError(500, "The server failed."))
            raise
        finally:
            if scope["path"] not in _UNCOUNTED:
                account.end()
