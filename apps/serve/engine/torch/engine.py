"""Continuous batching for LLaMA-family models in one thread: no paging, no compiler.

Each step runs one forward pass over one token of every running request plus at most
`prefill_chunk_tokens` of new prompts. scheduler.py says which; this file computes, chooses tokens
and tells them.
"""

import asyncio
import threading
import time
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
from apps.serve.engine.llama.weights import is_stored_as_bfloat16
from apps.serve.engine.protocol import (
    Capacity,
    EngineDeadError,
    EngineInfo,
    FinishReason,
    MaskFactory,
    Outbox,
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
from apps.serve.engine.torch.scheduler import Scheduler, Sequence

MAX_KV_BYTES = 2 << 30
"""Default bound of the KV budget, where it holds one context."""


class _Result(NamedTuple):
    sequence: Sequence
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
        self._scheduler = Scheduler(config)
        self._thread: threading.Thread | None = None
        self._death: BaseException | None = None
        self._step_began: float | None = None
        self._num_steps = self._num_generated_tokens = 0

    async def start(self) -> None:
        loaded: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(loaded,), name="torch-engine", daemon=True
        )
        self._thread.start()
        await asyncio.wrap_future(loaded)

    def _load(self) -> None:
        config = self.config
        torch.set_num_threads(1)  # log-probabilities and copies; the model has threads of its own
        shape = read_shape(config.path)
        context = min(config.context_tokens or shape.context_tokens, shape.context_tokens)
        kv_tokens = config.kv_tokens or default_kv_tokens(shape, context, config.max_running)
        context = min(context, kv_tokens)
        self.model = _load_model(config)
        self.info = EngineInfo(
            model=Path(config.path).name,
            context_tokens=context,
            vocab_size=shape.vocab_size,
            eos_token_ids=read_settings(config.path).eos_token_ids,
        )
        num_spare = max(1, kv_tokens // 2 // CHUNK) if config.prefix_cache else 0
        max_rows = config.max_running + config.prefill_chunk_tokens
        self.cache = self.model.new_cache(config.max_running, context, num_spare, max_rows)
        self._scheduler.open(kv_tokens, PrefixCache(self.cache) if config.prefix_cache else None)
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
        sequence = Sequence(request, outbox, state, min(total, self.info.context_tokens))
        self._scheduler.submit(sequence)

    def cancel(self, request_id: str) -> None:
        self._scheduler.cancel(request_id)

    def capacity(self) -> Capacity:
        return self._scheduler.capacity()

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

    def is_silent(self) -> bool:
        return False  # it is a thread of this process, whose silence gateways hear themselves

    def metrics(self) -> dict[str, float]:
        capacity = self.capacity()
        return {
            "steps_total": self._num_steps,
            "prompt_tokens_total": self._scheduler.num_prompt_tokens,
            "cached_tokens_total": self._scheduler.num_cached_tokens,
            "generated_tokens_total": self._num_generated_tokens,
            "requests_total": self._scheduler.num_requests,
            "kv_used_ratio": capacity.kv_used_tokens / capacity.kv_total_tokens,
        }

    async def close(self) -> None:
        self._scheduler.close()
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
            while self._scheduler.wait_for_work():
                self._step_began = time.monotonic()
                self._step()
                self._step_began = None
        except BaseException as error:  # a panic in an extension module is no Exception
            self._death = error
        self.cache.close()
        self._fail_all(self._death or CriaError("the engine was closed"))

    def _fail_all(self, error: BaseException) -> None:
        outboxes = {id(s.outbox): s.outbox for s in self._scheduler.drain()}
        for outbox in outboxes.values():
            outbox.fail(EngineDeadError(f"the engine died: {error!r}"))

    def _step(self) -> None:
        rows, sequences, scored = self._scheduler.plan()
        if not rows.token_ids:
            return
        logits = self.model.forward(rows, self.cache)
        for row, (sequence, token_id) in enumerate(scored, len(sequences)):
            sequence.prompt_logprobs += logprobs_of(logits[row], token_id, sequence.request.params)
        tokens, logprobs = sample(logits[: len(sequences)], [s.state for s in sequences])
        self._num_steps += 1
        self._deliver([_Result(*r) for r in zip(sequences, tokens, logprobs, strict=True)])

    def _deliver(self, results: list[_Result]) -> None:
        steps: dict[int, tuple[Outbox, list[Step]]] = {}
        ended = []
        for sequence, token_id, logprob in results:
            step = self._accept(sequence, token_id, logprob)
            steps.setdefault(id(sequence.outbox), (sequence.outbox, []))[1].append(step)
            if step.finish_reason is not None:
                ended.append(sequence)
        for sequence in ended:
            self._scheduler.finish(sequence)
        for outbox, batch in steps.values():
            outbox.put(batch)

    def _accept(self, sequence: Sequence, token_id: int, logprob: TokenLogprob | None) -> Step:
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
        self._num_generated_tokens += 1
        reason: FinishReason | None = None
        if token_id in state.stop_ids:
            reason = "stop"
        elif len(sequence.token_ids) >= sequence.max_total:
            reason = "length"
        logprobs = () if logprob is None else (logprob,)
        of_prompt, sequence.prompt_logprobs = tuple(sequence.prompt_logprobs), []
        return Step(request_id, (token_id,), logprobs, reason, cached, "", of_prompt)


def _load_model(config: TorchConfig) -> _Model:
    is_half = config.dtype == "bfloat16"
    if config.dtype == "auto":
        is_half = config.device != "cpu" or is_stored_as_bfloat16(config.path)
    dtype = torch.bfloat16 if is_half else torch.float32
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
    token_bytes = shape.kv_bytes_per_token
    usual = min(num_slots * context_tokens, MAX_KV_BYTES // token_bytes)
    fitting = psutil.virtual_memory().available // 2 // token_bytes
    return max(CHUNK, min(fitting, max(usual, context_tokens)))
