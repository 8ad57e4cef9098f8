"""Continuous batching for LLaMA-family models in one thread: no paging, no compiler.

Each step runs one forward pass over one token of every running request plus at most
`prefill_chunk_tokens` of new prompts. A request keeps its slot of the KV cache from its first token
to its last. It is admitted only when the tokens it may come to hold fit the KV budget, so none is
ever evicted.
"""

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psutil
import torch
from torch import Tensor

from apps.common.errors import CriaError
from apps.common.files.model_settings import read_settings
from apps.serve.engine.config import TorchConfig
from apps.serve.engine.cpu.draw import draw
from apps.serve.engine.cpu.llama import CompiledLlama
from apps.serve.engine.llama.kv_cache import CHUNK, Cache, Rows
from apps.serve.engine.llama.model_folder import Shape, read_shape
from apps.serve.engine.protocol import (
    Capacity,
    EngineDeadError,
    EngineInfo,
    FinishReason,
    MaskFactory,
    Outbox,
    OverloadedError,
    Request,
    RequestError,
    SamplingParams,
    Step,
    TokenLogprob,
    check_request,
)
from apps.serve.engine.torch.llama import Llama
from apps.serve.engine.torch.prefix_cache import PrefixCache
from apps.serve.engine.torch.sampler import SamplerState, logprobs_of, sample

MAX_KV_BYTES = 2 << 30
"""Default bound of the KV budget, where it holds one context."""


class _Sequence:
    """One request while it is queued or running."""

    __slots__ = (
        "cached", "is_broken", "max_total", "num_computed", "outbox", "prompt_logprobs", "request",
        "slot", "state", "token_ids",
    )  # fmt: skip

    def __init__(
        self, request: Request, outbox: Outbox, state: SamplerState, max_total: int
    ) -> None:
        self.request, self.outbox, self.state, self.max_total = request, outbox, state, max_total
        self.token_ids = [*request.prompt_ids, *request.generated_ids]
        self.slot = -1
        self.num_computed = 0
        self.cached = 0
        self.is_broken = False
        self.prompt_logprobs: list[TokenLogprob] = []

    @property
    def scores_prompt(self) -> bool:
        """A request that moved here has told its prompt's already."""
        return self.request.params.prompt_logprobs and not self.request.generated_ids


class _Result(NamedTuple):
    sequence: _Sequence
    token_id: int
    logprob: TokenLogprob | None


class _Model(Protocol):
    """A network with a cache of its own kind."""

    def new_cache(
        self, num_slots: int, num_tokens: int, num_spare: int, max_rows: int
    ) -> Cache: ...

    def forward(self, rows: Rows, cache: Any, /) -> Tensor: ...


class TorchEngine:
    """See apps.serve.engine.protocol.Engine."""

    def __init__(self, config: TorchConfig, mask_factory: MaskFactory | None = None) -> None:
        self.config = config
        self.mask_factory = mask_factory
        self._lock = threading.Condition()
        self._arrived: deque[_Sequence] = deque()
        self._known: dict[str, _Sequence] = {}
        self._cancelled: list[_Sequence] = []
        self._waiting: deque[_Sequence] = deque()
        self._running: list[_Sequence] = []
        self._free_slots = list(range(config.max_running))
        self._prefilling: _Sequence | None = None
        self._kv_reserved = 0
        self._thread: threading.Thread | None = None
        self._closing = False
        self._death: BaseException | None = None
        self._step_began: float | None = None
        self._totals = dict.fromkeys(
            ("steps", "prompt_tokens", "cached_tokens", "generated_tokens", "requests"), 0
        )

    async def start(self) -> None:
        loaded: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(loaded,), name="torch-engine", daemon=True
        )
        self._thread.start()
        await asyncio.wrap_future(loaded)

    def _load(self) -> None:
        config = self.config
        dtype = {"auto": torch.bfloat16, "bfloat16": torch.bfloat16, "float32": torch.float32}
        if config.device == "cpu":
            dtype["auto"] = torch.float32
        torch.set_num_threads(1)  # log-probabilities and copies; the model has threads of its own
        shape = read_shape(config.path)
        context = min(config.context_tokens or shape.context_tokens, shape.context_tokens)
        self.kv_tokens = config.kv_tokens or default_kv_tokens(shape, context, config.max_running)
        context = min(context, self.kv_tokens)
        self.model = _load_model(config, dtype[config.dtype])
        self.info = EngineInfo(
            model=Path(config.path).name,
            context_tokens=context,
            vocab_size=shape.vocab_size,
            eos_token_ids=read_settings(config.path).eos_token_ids,
        )
        num_spare = max(1, self.kv_tokens // 2 // CHUNK) if config.prefix_cache else 0
        max_rows = config.max_running + config.prefill_chunk_tokens
        self.cache = self.model.new_cache(config.max_running, context, num_spare, max_rows)
        self.prefixes = PrefixCache(self.cache) if config.prefix_cache else None
        logits = self.model.forward(_first_rows(), self.cache)
        draw(logits[0].cpu().numpy(), SamplingParams(), u=0.0)  # all is compiled now

    async def submit(self, request: Request, outbox: Outbox) -> None:
        self.check_health()
        check_request(request, self.info)
        mask = None
        if request.params.grammar is not None:
            if self.mask_factory is None:
                raise RequestError("this engine has no grammar support", "response_format")
            mask = await asyncio.to_thread(self.mask_factory, request.params.grammar)
        state = SamplerState.of(request, self.info.eos_token_ids, mask)
        total = len(request.prompt_ids) + (request.params.max_tokens or self.info.context_tokens)
        sequence = _Sequence(request, outbox, state, min(total, self.info.context_tokens))
        with self._lock:
            self.check_health()  # again: compiling a grammar may have taken long
            if len(self._waiting) + len(self._arrived) >= self.config.max_waiting:
                raise OverloadedError(
                    f"{self.config.max_waiting} requests are waiting already; try again later"
                )
            if request.id in self._known:
                raise RequestError(f"a request with id {request.id!r} is running already", "id")
            self._known[request.id] = sequence
            self._arrived.append(sequence)
            self._lock.notify()

    def cancel(self, request_id: str) -> None:
        with self._lock:
            sequence = self._known.get(request_id)
            if sequence is not None:
                self._cancelled.append(sequence)
                self._lock.notify()

    def capacity(self) -> Capacity:
        with self._lock:
            return Capacity(
                running=len(self._running) + (self._prefilling is not None),
                waiting=len(self._waiting) + len(self._arrived),
                max_running=self.config.max_running,
                max_waiting=self.config.max_waiting,
                kv_used_tokens=self._kv_reserved,
                kv_total_tokens=self.kv_tokens,
            )

    def check_health(self) -> None:
        if self._death is not None:
            raise EngineDeadError(f"the engine died: {self._death!r}; its replica is replaced")
        if self._thread is None or not self._thread.is_alive():
            raise EngineDeadError("the engine's thread is not running; its replica is replaced")
        began = self._step_began
        if began is not None and time.monotonic() - began > self.config.hang_timeout_s:
            raise EngineDeadError(
                f"a step has been running for more than {self.config.hang_timeout_s:g} s; "
                "the engine hangs and its replica is replaced"
            )

    def metrics(self) -> dict[str, float]:
        capacity = self.capacity()
        numbers = {f"{name}_total": float(value) for name, value in self._totals.items()}
        numbers["kv_used_ratio"] = capacity.kv_used_tokens / capacity.kv_total_tokens
        return numbers

    async def close(self) -> None:
        with self._lock:
            self._closing = True
            self._lock.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _run(self, loaded: Future[None]) -> None:
        try:
            self._load()
        except BaseException as error:
            loaded.set_exception(error)
            return
        loaded.set_result(None)
        try:
            while self._wait_for_work():
                self._step_began = time.monotonic()
                self._step()
                self._step_began = None
        except BaseException as error:  # a panic in an extension module is no Exception
            self._death = error
        self.cache.close()
        self._fail_all(self._death or CriaError("the engine was closed"))

    def _fail_all(self, error: BaseException) -> None:
        with self._lock:
            outboxes = {id(s.outbox): s.outbox for s in self._known.values()}
            self._known.clear()
        for outbox in outboxes.values():
            outbox.fail(EngineDeadError(f"the engine died: {error!r}"))

    def _wait_for_work(self) -> bool:
        """Take what arrived and drop what was cancelled; False when closing."""
        with self._lock:
            while not (self._closing or self._arrived or self._has_work()):
                self._lock.wait()
            self._waiting.extend(self._arrived)
            self._arrived.clear()
            cancelled, self._cancelled = self._cancelled, []
        for sequence in cancelled:
            self._drop(sequence)
        return not self._closing

    def _has_work(self) -> bool:
        return bool(self._running or self._prefilling or self._waiting)

    def _step(self) -> None:
        rows, sequences, scored = self._plan()
        if not rows.token_ids:
            return
        logits = self.model.forward(rows, self.cache)
        for row, (sequence, token_id) in enumerate(scored, len(sequences)):
            sequence.prompt_logprobs += logprobs_of(logits[row], token_id, sequence.request.params)
        tokens, logprobs = sample(logits[: len(sequences)], [s.state for s in sequences])
        self._totals["steps"] += 1
        self._deliver([_Result(*r) for r in zip(sequences, tokens, logprobs, strict=True)])

    def _drop(self, sequence: _Sequence) -> None:
        if self._known.get(sequence.request.id) is not sequence:
            return
        if sequence.slot >= 0:
            self._release(sequence)
        else:
            with self._lock:
                self._waiting.remove(sequence)
        self._finish(sequence)
        sequence.outbox.put([Step(sequence.request.id, (), finish_reason="cancelled")])

    def _plan(self) -> tuple[Rows, list[_Sequence], list[tuple[_Sequence, int]]]:
        """Rows of the next pass; then, in logit order, the requests that get a token from it and
        the prompt tokens whose probability is asked for."""
        rows = Rows()
        for index, sequence in enumerate(self._running):
            rows.add(sequence.token_ids[-1:], len(sequence.token_ids) - 1, sequence.slot)
            rows.logit_rows.append(index)
            sequence.num_computed = len(sequence.token_ids)
        rows.num_decode = len(self._running)
        scored: list[tuple[_Sequence, int]] = []
        scored_rows: list[int] = []
        budget = self.config.prefill_chunk_tokens
        while budget > 0 and (sequence := self._next_prefill()) is not None:
            start = sequence.num_computed
            new = sequence.token_ids[start : start + budget]
            if sequence.scores_prompt:
                following = sequence.token_ids[start + 1 : start + 1 + len(new)]
                scored += [(sequence, token_id) for token_id in following]
                scored_rows += range(len(rows.token_ids), len(rows.token_ids) + len(following))
            rows.add(new, start, sequence.slot)
            sequence.num_computed += len(new)
            self._totals["prompt_tokens"] += len(new)
            budget -= len(new)
            if sequence.num_computed == len(sequence.token_ids):
                rows.logit_rows.append(len(rows.token_ids) - 1)
                self._running.append(sequence)
                self._prefilling = None
        rows.logit_rows += scored_rows
        return rows, self._running[:], scored

    def _next_prefill(self) -> _Sequence | None:
        """The prompt in work, or the next one in the queue if it fits."""
        if self._prefilling is not None or not self._waiting:
            return self._prefilling
        sequence = self._waiting[0]
        if not self._free_slots or self._kv_reserved + sequence.max_total > self.kv_tokens:
            return None
        with self._lock:
            self._waiting.popleft()
        self._kv_reserved += sequence.max_total
        sequence.slot = self._free_slots.pop()
        if self.prefixes is not None and not sequence.scores_prompt:
            sequence.cached = sequence.num_computed = self.prefixes.load(
                sequence.slot, sequence.token_ids, sequence.request.cache_salt
            )
        self._totals["cached_tokens"] += sequence.cached
        self._prefilling = sequence
        return sequence

    def _deliver(self, results: list[_Result]) -> None:
        steps: dict[int, tuple[Outbox, list[Step]]] = {}
        ended = []
        for sequence, token_id, logprob in results:
            step = self._accept(sequence, token_id, logprob)
            steps.setdefault(id(sequence.outbox), (sequence.outbox, []))[1].append(step)
            if step.finish_reason is not None:
                ended.append(sequence)
        for sequence in ended:
            self._release(sequence)
            self._finish(sequence)
        for outbox, batch in steps.values():
            outbox.put(batch)

    def _accept(self, sequence: _Sequence, token_id: int, logprob: TokenLogprob | None) -> Step:
        request_id, cached = sequence.request.id, sequence.cached
        sequence.cached = 0
        if token_id < 0:
            sequence.is_broken = True
            return Step(request_id, (), finish_reason="error", error=sequence.state.error)
        state = sequence.state
        sequence.token_ids.append(token_id)
        try:
            state.accept(token_id)
        except CriaError as grammar_error:
            return Step(request_id, (), finish_reason="error", error=str(grammar_error))
        self._totals["generated_tokens"] += 1
        reason: FinishReason | None = None
        if token_id in state.stop_ids:
            reason = "stop"
        elif len(sequence.token_ids) >= sequence.max_total:
            reason = "length"
        logprobs = () if logprob is None else (logprob,)
        of_prompt, sequence.prompt_logprobs = tuple(sequence.prompt_logprobs), []
        return Step(request_id, (token_id,), logprobs, reason, cached, "", of_prompt)

    def _release(self, sequence: _Sequence) -> None:
        """Take back the slot of a request that is running or in prefill."""
        if sequence is self._prefilling:
            self._prefilling = None
        else:
            self._running.remove(sequence)
        if self.prefixes is not None and not sequence.is_broken:
            computed = sequence.token_ids[: sequence.num_computed]
            self.prefixes.store(sequence.slot, computed, sequence.request.cache_salt)
        self._free_slots.append(sequence.slot)
        self._kv_reserved -= sequence.max_total

    def _finish(self, sequence: _Sequence) -> None:
        self._totals["requests"] += 1
        with self._lock:
            self._known.pop(sequence.request.id, None)


def _load_model(config: TorchConfig, dtype: torch.dtype) -> _Model:
    if config.device == "cpu":
        return CompiledLlama(config.path, dtype=dtype, num_threads=config.num_threads)
    return Llama(config.path, device=config.device, dtype=dtype)


def _first_rows() -> Rows:
    rows = Rows(num_decode=1, logit_rows=[0])
    rows.add([0], position=0, slot=0)
    return rows


def default_kv_tokens(shape: Shape, context_tokens: int, num_slots: int) -> int:
    """A context for every slot, or what MAX_KV_BYTES hold, but one context at least; never more
    than half of the free memory."""
    token_bytes = 8 * shape.num_layers * shape.num_kv_heads * shape.head_dim
    usual = min(num_slots * context_tokens, MAX_KV_BYTES // token_bytes)
    fitting = psutil.virtual_memory().available // 2 // token_bytes
    return max(CHUNK, min(fitting, max(usual, context_tokens)))
