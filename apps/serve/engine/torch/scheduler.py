"""Which request runs when: a queue, one slot of the KV cache each, a budget of cached tokens.

Requests arrive and are cancelled from any thread; everything else belongs to the engine's thread.
One is admitted when a slot is free and the tokens it may come to hold fit the budget, in the order
of arrival, so none is ever evicted. With two slots and 100 tokens:

    a (60), b (50), c (30) arrive    a runs; b would make 110 and waits; c waits behind b
    a ends                           b and c run
"""

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from apps.serve.engine.config import TorchConfig
from apps.serve.engine.llama.kv_cache import Rows
from apps.serve.engine.protocol import (
    Capacity,
    EngineDeadError,
    Outbox,
    OverloadedError,
    Request,
    RequestError,
    Step,
    TokenLogprob,
)
from apps.serve.engine.torch.prefix_cache import PrefixCache
from apps.serve.engine.torch.sampler import SamplerState


@dataclass(slots=True, eq=False)
class Sequence:
    """One request while it is queued or running."""

    request: Request
    outbox: Outbox
    state: SamplerState
    max_total: int
    """most tokens of prompt and answer"""
    token_ids: list[int] = field(init=False)
    slot: int = -1
    """of the KV cache; -1 while it waits"""
    num_computed: int = 0
    cached: int = 0
    """prompt tokens taken from the prefix cache, until they are told"""
    is_broken: bool = False
    """its keys and values are not to be reused"""
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])

    def __post_init__(self) -> None:
        self.token_ids = [*self.request.prompt_ids, *self.request.generated_ids]

    @property
    def scores_prompt(self) -> bool:
        """A request that moved here has told its prompt's already."""
        return self.request.params.prompt_logprobs and not self.request.generated_ids


class Batch(NamedTuple):
    """One forward pass."""

    rows: Rows
    sequences: list[Sequence]
    """Those that get a token from it, in the order of its first logits."""
    scored: list[tuple[Sequence, int]]
    """Prompt tokens whose probability is asked for, in the order of the logits after those."""


class Scheduler:
    def __init__(self, config: TorchConfig) -> None:
        self.kv_tokens = 0
        self.num_requests = self.num_prompt_tokens = self.num_cached_tokens = 0
        self._config = config
        self._prefixes: PrefixCache | None = None
        self._lock = threading.Condition()
        self._known: dict[str, Sequence] = {}
        self._arrived: deque[Sequence] = deque()
        self._cancelled: list[Sequence] = []
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._prefilling: Sequence | None = None
        self._free_slots = list(range(config.max_running))
        self._kv_reserved = 0
        self._closing = self._is_drained = False

    def open(self, kv_tokens: int, prefixes: PrefixCache | None) -> None:
        """What is known once the model is loaded."""
        self.kv_tokens, self._prefixes = kv_tokens, prefixes

    def submit(self, sequence: Sequence) -> None:
        """Raises OverloadedError when the queue is full, EngineDeadError after `drain`."""
        request_id, most = sequence.request.id, self._config.max_waiting
        with self._lock:
            if self._is_drained:
                raise EngineDeadError("the engine has ended; its replica is replaced")
            if len(self._waiting) + len(self._arrived) >= most:
                raise OverloadedError(f"{most} requests are waiting already; try again later")
            if request_id in self._known:
                raise RequestError(f"a request with id {request_id!r} is running already", "id")
            self._known[request_id] = sequence
            self._arrived.append(sequence)
            self._lock.notify()

    def cancel(self, request_id: str) -> None:
        with self._lock:
            sequence = self._known.get(request_id)
            if sequence is not None:
                self._cancelled.append(sequence)
                self._lock.notify()

    def close(self) -> None:
        with self._lock:
            self._closing = True
            self._lock.notify()

    def capacity(self) -> Capacity:
        with self._lock:
            return Capacity(
                running=len(self._running) + (self._prefilling is not None),
                waiting=len(self._waiting) + len(self._arrived),
                max_running=self._config.max_running,
                max_waiting=self._config.max_waiting,
                kv_used_tokens=self._kv_reserved,
                kv_total_tokens=self.kv_tokens,
            )

    def wait_for_work(self) -> bool:
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

    def plan(self) -> Batch:
        """A token of every running request, and prompts up to `prefill_chunk_tokens`."""
        rows = Rows()
        for index, sequence in enumerate(self._running):
            rows.add(sequence.token_ids[-1:], len(sequence.token_ids) - 1, sequence.slot)
            rows.logit_rows.append(index)
            sequence.num_computed = len(sequence.token_ids)
        rows.num_decode = len(self._running)
        scored: list[tuple[Sequence, int]] = []
        scored_rows: list[int] = []
        budget = self._config.prefill_chunk_tokens
        while budget > 0 and (sequence := self._next_prefill()) is not None:
            start = sequence.num_computed
            new = sequence.token_ids[start : start + budget]
            if sequence.scores_prompt:
                following = sequence.token_ids[start + 1 : start + 1 + len(new)]
                scored += [(sequence, token_id) for token_id in following]
                scored_rows += range(len(rows.token_ids), len(rows.token_ids) + len(following))
            rows.add(new, start, sequence.slot)
            sequence.num_computed += len(new)
            self.num_prompt_tokens += len(new)
            budget -= len(new)
            if sequence.num_computed == len(sequence.token_ids):
                rows.logit_rows.append(len(rows.token_ids) - 1)
                self._running.append(sequence)
                self._prefilling = None
        rows.logit_rows += scored_rows
        return Batch(rows, self._running[:], scored)

    def finish(self, sequence: Sequence) -> None:
        """Take back the slot of a request that is running or in prefill, and forget it."""
        if sequence is self._prefilling:
            self._prefilling = None
        else:
            self._running.remove(sequence)
        if self._prefixes is not None and not sequence.is_broken:
            computed = sequence.token_ids[: sequence.num_computed]
            self._prefixes.store(sequence.slot, computed, sequence.request.cache_salt)
        self._free_slots.append(sequence.slot)
        self._kv_reserved -= sequence.max_total
        self._forget(sequence)

    def drain(self) -> list[Sequence]:
        """Every request, which the engine will never run; it takes no more."""
        with self._lock:
            self._is_drained = True
            known = list(self._known.values())
            self._known.clear()
        return known

    def _has_work(self) -> bool:
        return bool(self._running or self._prefilling or self._waiting)

    def _drop(self, sequence: Sequence) -> None:
        if self._known.get(sequence.request.id) is not sequence:
            return
        if sequence.slot >= 0:
            self.finish(sequence)
        else:
            with self._lock:
                self._waiting.remove(sequence)
            self._forget(sequence)
        sequence.outbox.put([Step(sequence.request.id, (), finish_reason="cancelled")])

    def _forget(self, sequence: Sequence) -> None:
        self.num_requests += 1
        with self._lock:
            self._known.pop(sequence.request.id, None)

    def _next_prefill(self) -> Sequence | None:
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
        if self._prefixes is not None and not sequence.scores_prompt:
            sequence.cached = sequence.num_computed = self._prefixes.load(
                sequence.slot, sequence.token_ids, sequence.request.cache_salt
            )
        self.num_cached_tokens += sequence.cached
        self._prefilling = sequence
        return sequence
