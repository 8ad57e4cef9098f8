"""What an engine is: token ids in, a stream of token ids out, cancel, capacity, health.

An engine runs on one asyncio loop and speaks only tokens. Text (chat templates, stop strings,
detokenizing, JSON) lives above it. A request carries everything that is needed to continue it on
another engine: the prompt, the tokens already generated, and a seed; random numbers are keyed by
(seed, index of the generated token), so the continuation equals the undisturbed run.

    outbox = Outbox()
    await engine.submit(Request(id="r1", prompt_ids=ids, params=SamplingParams(seed=7)), outbox)
    async for steps in outbox:          # one list per engine step, all requests of this outbox
        for step in steps: ...

`generate` below wraps this for a caller that has a single request.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from apps.common.errors import CriaError, InputError

MAX_TOP_LOGPROBS = 20
MAX_LOGIT_BIAS = 1024
MAX_STOP_TOKEN_IDS = 64
MAX_GRAMMAR_BYTES = 64 * 1024

FinishReason = Literal["stop", "length", "cancelled", "error"]


class RequestError(InputError):
    """A request that this engine can never serve. `param` names the field, `code` the kind."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class OverloadedError(CriaError):
    """The queue is full; the request may succeed after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EngineDeadError(CriaError):
    """The engine can serve nothing any more; its replica must be replaced."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grammar:
    """What the output must match: any JSON object, or the JSON schema in `text`."""

    kind: Literal["json_object", "json_schema"]
    text: str = ""

    def __post_init__(self) -> None:
        if len(self.text.encode()) > MAX_GRAMMAR_BYTES:
            raise RequestError(
                f"the {self.kind} is longer than {MAX_GRAMMAR_BYTES:,} bytes; make it smaller",
                "response_format",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How to choose the next token. Every value is bounded at construction (RequestError)."""

    max_tokens: int | None = None
    """Most tokens to generate; None: until the context is full. Engines refuse 0."""
    min_tokens: int = 0
    """No stop token before this many generated tokens."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    """Divides (multiplies when negative) the logits of tokens in prompt or output; 1 is off."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    """Always set; whoever accepts the request draws one when the client gave none."""
    stop_token_ids: tuple[int, ...] = ()
    """End the answer, beside the model's own end tokens."""
    ignore_eos: bool = False
    """Do not stop at the model's own end tokens (for benchmarks)."""
    logprobs: int | None = None
    """None: no log-probabilities; k: the chosen token's and the k likeliest ones'."""
    prompt_logprobs: bool = False
    """Also of the prompt's tokens, where `logprobs` is set."""
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        _bounded("max_tokens", self.max_tokens, 0, 2**31 - 1)
        _bounded("min_tokens", self.min_tokens, 0, 2**31 - 1)
        _bounded("temperature", self.temperature, 0.0, 2.0)
        _bounded("top_p", self.top_p, 0.0, 1.0)
        _bounded("top_k", self.top_k, 0, 2**31 - 1)
        _bounded("min_p", self.min_p, 0.0, 1.0)
        _bounded("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _bounded("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _bounded("repetition_penalty", self.repetition_penalty, 0.01, 10.0)
        _bounded("seed", self.seed, -(2**63), 2**63 - 1)
        _bounded("logprobs", self.logprobs, 0, MAX_TOP_LOGPROBS)
        _bounded("len(logit_bias)", len(self.logit_bias), 0, MAX_LOGIT_BIAS)
        _bounded("len(stop_token_ids)", len(self.stop_token_ids), 0, MAX_STOP_TOKEN_IDS)
        for bias in self.logit_bias.values():
            _bounded("logit_bias", bias, -100.0, 100.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One sequence to continue. A request that moves carries what it already generated."""

    id: str
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    generated_ids: tuple[int, ...] = ()
    """Tokens another engine already produced; they count toward max_tokens and penalties."""
    cache_salt: str = ""
    """Prefixes are reused only between requests with the same salt."""
    conversation: str = ""
    """Digest that the turns of one conversation share: they belong on one engine, for its prefix
    cache. Empty: any engine is as good."""
    tokenizer: str = ""
    """Digest of the one that the ids are of. Empty: of the model's, whatever that is."""


class TokenLogprob(NamedTuple):
    logprob: float
    top: tuple[tuple[int, float], ...]
    """(token id, log-probability), likeliest first."""


class Step(NamedTuple):
    """What one engine step added to one request. The last step has a finish reason."""

    request_id: str
    token_ids: tuple[int, ...]
    """Includes the stop token when `finish_reason` is "stop"; text above drops it."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """One per token id when asked for, otherwise empty."""
    finish_reason: FinishReason | None = None
    cached_tokens: int = 0
    """Prompt tokens taken from the prefix cache; on the first step only."""
    error: str = ""
    """A sentence, when `finish_reason` is "error"."""
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """Of all prompt tokens but the first, which nothing precedes; on the first step only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineInfo:
    """Constants of a started engine."""

    model: str
    context_tokens: int
    """Longest prompt plus answer."""
    vocab_size: int
    """0: not known."""
    eos_token_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    running: int
    """Requests that generate now."""
    waiting: int
    """Requests that are queued."""
    max_running: int
    max_waiting: int
    kv_used_tokens: int
    kv_total_tokens: int

    @property
    def load(self) -> float:
        """How much it is asked for, as a share of what it can take at a time, by places or by
        tokens, whichever is scarcer. Those that wait count as much as those that run do:

            running 8 of 32 with 3,000 of 4,000 tokens, waiting 4    3/4 * (1 + 4/8) = 1.125
        """
        places = (self.running + self.waiting) / self.max_running
        tokens = self.kv_used_tokens / max(1, self.kv_total_tokens)
        return max(places, tokens * (1 + self.waiting / max(1, self.running)))


class TokenMask(Protocol):
    """A grammar's state in one request."""

    def bitmask(self) -> bytes:
        """Allowed tokens, bit i % 32 of little-endian word i // 32; ceil(vocab / 32) words."""
        ...

    def accept(self, token_id: int) -> None: ...


MaskFactory = Callable[[Grammar], TokenMask]


class Outbox:
    """Where an engine puts the steps of one consumer's requests.

    `put` and `fail` may be called from any thread; reading belongs to the loop that made it. A slow
    reader gets several engine steps in one list and never holds up the engine.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._steps: list[Step] = []
        self._error: Exception | None = None
        self._closed = False
        self._ready = asyncio.Event()

    def put(self, steps: list[Step]) -> None:
        self._notify(self._extend, steps)

    def fail(self, error: Exception) -> None:
        """The engine died: readers get what was put before, then this error."""
        self._notify(self._set_error, error)

    def close(self) -> None:
        """End the iteration after what was put before."""
        self._notify(self._set_closed)

    def _notify(self, fn: Callable[..., None], *args: object) -> None:
        # A consumer whose loop has ended is gone; its requests are cancelled by whoever owned it.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(fn, *args)

    def _extend(self, steps: list[Step]) -> None:
        self._steps.extend(steps)
        self._ready.set()

    def _set_error(self, error: Exception) -> None:
        self._error = error
        self._ready.set()

    def _set_closed(self) -> None:
        self._closed = True
        self._ready.set()

    def __aiter__(self) -> AsyncIterator[list[Step]]:
        return self

    async def __anext__(self) -> list[Step]:
        await self._ready.wait()
        if self._steps:
            steps, self._steps = self._steps, []
            if self._error is None and not self._closed:
                self._ready.clear()
            return steps
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration


class Engine(Protocol):
    """Every method but `start` and `close` returns at once."""

    info: EngineInfo

    async def start(self) -> None:
        """Load the model; returns when the engine can serve."""
        ...

    async def submit(self, request: Request, outbox: Outbox) -> None:
        """Queue a request; its steps go to `outbox`.

        Raises RequestError (can never be served), OverloadedError (queue full) or EngineDeadError.
        """
        ...

    def cancel(self, request_id: str) -> None:
        """Free the request's slot before the next step; unknown ids are ignored. The outbox gets
        a step with finish_reason "cancelled"."""
        ...

    def capacity(self) -> Capacity: ...

    def check_health(self) -> None:
        """Raises EngineDeadError as soon as the engine died, hangs or ran out of memory."""
        ...

    def is_silent(self) -> bool:
        """Whether another process does the work and has said nothing for a while."""
        ...

    def metrics(self) -> dict[str, float]:
        """Flat numbers; a name that ends in `_total` only grows, others are gauges."""
        ...

    async def close(self) -> None: ...


async def generate(engine: Engine, request: Request) -> AsyncIterator[Step]:
    """Steps of one request; cancels it when the caller leaves early."""
    outbox = Outbox()
    await engine.submit(request, outbox)
    finished = False
    try:
        async for steps in outbox:
            for step in steps:
                finished = step.finish_reason is not None
                yield step
                if finished:
                    return
    finally:
        if not finished:
            engine.cancel(request.id)


def check_request(request: Request, info: EngineInfo) -> None:
    """Refuse what could never run, before it reaches the model."""
    params, all_ids = request.params, (*request.prompt_ids, *request.generated_ids)
    if not request.prompt_ids:
        raise RequestError("the prompt is empty; it needs at least one token", "prompt")
    if len(all_ids) >= info.context_tokens:
        raise RequestError(
            f"the prompt has {len(all_ids):,} tokens and the context is {info.context_tokens:,}, "
            "which must also hold the answer; shorten the prompt",
            "messages",
            "context_length_exceeded",
        )
    if params.max_tokens is not None and len(request.generated_ids) >= params.max_tokens:
        raise RequestError("nothing is left to generate: max_tokens is reached", "max_tokens")
    for name, ids in (
        ("prompt", all_ids),
        ("logit_bias", params.logit_bias),
        ("stop_token_ids", params.stop_token_ids),
    ):
        if ids and info.vocab_size and not (min(ids) >= 0 and max(ids) < info.vocab_size):
            raise RequestError(f"{name} has a token id outside 0..{info.vocab_size - 1}", name)


def _bounded(name: str, value: float | None, low: float, high: float) -> None:
    """Integer bounds ask for an integer."""
    if value is None:
        return
    wanted, kinds = ("an integer", (int,)) if isinstance(low, int) else ("a number", (int, float))
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
        raise RequestError(f"{name} must be {wanted} from {low} to {high}, not {value!r}", name)
    if not low <= value <= high:
        raise RequestError(f"{name} must be from {low} to {high}, not {value}", name)
