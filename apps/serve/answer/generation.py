"""From a request to pieces of text: submit, follow, detokenize, stop, move on when a replica dies.

The gateway keeps every token id of a running request, so a request whose replica is lost goes on
elsewhere from its last token; random numbers depend on (seed, position) alone, so the text is that
of the undisturbed run.
"""

import asyncio
import contextlib
import dataclasses
import secrets
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from apps.serve.answer.merge import merged
from apps.serve.engine.protocol import (
    FinishReason,
    Request,
    RequestError,
    SamplingParams,
    Step,
    TokenLogprob,
)
from apps.serve.model.grammar import GRAMMAR_REFUSED
from apps.serve.model.served import ServedModel
from apps.serve.model.text import TextStream
from apps.serve.replica.exchange import Backend, ReplicaDeadError, ReplicaLostError
from apps.serve.replica.kept import Kept

MAX_FRUITLESS_LOSSES = 2
"""A request that loses so many replicas without a token in between has probably killed them."""
_LOSS_PAUSE_S = 0.1
"""For the router to learn that the replica is gone; five times as long after a fruitless loss."""
MAX_REFUSALS = 50
REFUSED_PAUSE_S = 0.1
"""Until a replica with a dead engine ends, it refuses at once and so looks idle to the router."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One sequence to generate for one choice of an answer."""

    id: str
    model: ServedModel
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    strip_space: str = ""
    """White space that the template puts before an answer; dropped from its beginning."""
    cache_salt: str = ""
    conversation: str = ""
    """As Request.conversation."""
    is_prompt_only: bool = False
    """Only the prompt's log-probabilities are wanted, no answer."""
    is_resumed: bool = False
    """Some of its answer was sent already; a replica may have kept it."""


class Token(NamedTuple):
    """A generated token with its log-probability, when asked for."""

    id: int
    logprob: TokenLogprob | None
    start: int = 0
    """Where in the answer's text it begins."""


class Delta(NamedTuple):
    """What one or several engine steps added to one choice."""

    index: int
    text: str
    tokens: tuple[Token, ...]
    """Tokens of the answer, as their text comes out; stop tokens and those of a stop string that is
    cut off are not among them."""
    num_generated: int
    """Generated tokens, stop tokens included."""
    cached_tokens: int
    finish_reason: FinishReason | None
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """As Step.prompt_logprobs."""
    is_replayed: bool = False
    """Generated for an earlier connection, which counted it."""


class GenerationError(Exception):
    """The engine gave up on one request."""


class PoisonError(GenerationError):
    """Replicas end when they get this request."""


async def follow(
    backend: Backend, job: Job, index: int, untaken: list[Delta]
) -> AsyncGenerator[Delta, None]:
    """The answer to one job, piece by piece; leaving early frees its slot, and puts what had come
    by then into `untaken`."""
    if job.params.max_tokens == 0:
        yield Delta(index, "", (), 0, 0, "length")
        return
    text = TextStream(
        job.model.tokenizer.backend,
        job.stop,
        job.include_stop,
        skip=job.strip_space,
        context=job.model.tokens.last_text(job.prompt_ids),
    )
    request = Request(
        id=job.id,
        prompt_ids=job.prompt_ids,
        params=job.params,
        cache_salt=job.cache_salt,
        conversation=job.conversation,
        tokenizer=job.model.tokenizer.digest,
    )
    held: list[Token] = []
    unread: list[Step] = []
    is_finished = False
    try:
        async with contextlib.aclosing(
            _from_kept(backend, request, job.is_resumed, unread)
        ) as steps:
            async for step, is_replayed in steps:
                if step.finish_reason == "error":
                    raise _failure(step.error or "the engine failed")
                if job.is_prompt_only:
                    is_finished = True
                    yield Delta(index, "", (), 0, 0, "length", step.prompt_logprobs)
                    return
                delta = _delta(step, index, text, held)._replace(is_replayed=is_replayed)
                is_finished = delta.finish_reason is not None
                yield delta
                if is_finished:
                    return
    finally:
        if not is_finished:
            if job.is_prompt_only:
                unread = [Step(request.id, ()) for _ in unread[:1]]
            untaken += _unread_deltas(unread, index, text, held)


def _unread_deltas(
    unread: Sequence[Step], index: int, text: TextStream, held: list[Token]
) -> Iterator[Delta]:
    """Up to the answer's end, if that has come."""
    for step in unread:
        if step.finish_reason in ("error", "cancelled"):
            return
        # As in _moving.
        step = step._replace(cached_tokens=0) if text.num_tokens else step
        delta = _delta(step, index, text, held)
        yield delta
        if delta.finish_reason is not None:
            return


def _failure(message: str) -> Exception:
    """A grammar may turn out to be too much work in the middle of an answer."""
    if message.startswith(GRAMMAR_REFUSED):
        return RequestError(message, "response_format")
    return GenerationError(message)


def _delta(step: Step, index: int, text: TextStream, held: list[Token]) -> Delta:
    """`held` are the tokens so far that may belong to a stop string; it is changed."""
    finish = step.finish_reason
    ids = step.token_ids[:-1] if finish == "stop" else step.token_ids
    num_generated, num_before = len(step.token_ids), text.num_tokens
    new = text.push(ids, final=finish is not None)
    if text.stopped:
        finish = "stop"
        ids = ids[: text.num_tokens - num_before]
        num_generated = len(ids)
    logprobs: Sequence[TokenLogprob | None] = step.logprobs or (None,) * len(ids)
    held += map(Token, ids, logprobs, text.starts[num_before:])
    is_all = finish is not None and not text.stopped
    num_out = len(held) if is_all else sum(token.start < text.num_chars for token in held)
    tokens = tuple(held[:num_out])
    del held[:num_out]
    counts = (num_generated, step.cached_tokens)
    return Delta(index, new, tokens, *counts, finish, step.prompt_logprobs)


async def _from_kept(
    backend: Backend, request: Request, is_resumed: bool, unread: list[Step]
) -> AsyncGenerator[tuple[Step, bool], None]:
    """Steps, and whether they are an earlier connection's: what a replica kept, then what is new.

    Where none kept it, as when that replica is lost too, the answer is generated again.
    """
    kept = await backend.kept(request) if is_resumed else None
    if kept is not None and _tells_all(kept, request):
        for i, token_id in enumerate(kept.token_ids):
            is_last = i == len(kept.token_ids) - 1
            logprobs = (kept.logprobs[i],) if kept.logprobs else ()
            finish = kept.finish_reason if is_last else None
            yield Step(request.id, (token_id,), logprobs, finish), True
        if kept.finish_reason is not None:
            return
        request = dataclasses.replace(request, generated_ids=tuple(kept.token_ids))
    async with contextlib.aclosing(_moving(backend, request, unread)) as steps:
        async for step in steps:
            yield step, False


def _tells_all(kept: Kept, request: Request) -> bool:
    """A replica that took over in the middle does not know the log-probabilities before that."""
    return request.params.logprobs is None or len(kept.logprobs) == len(kept.token_ids)


async def _moving(
    backend: Backend, request: Request, unread: list[Step]
) -> AsyncGenerator[Step, None]:
    """Steps of a request, continued on another replica when its own is lost.

    It may move as often as it must while it gets on. One whose replicas end without a token in
    between is poison, and not given another.
    """
    generated = list(request.generated_ids)
    refusals = fruitless = 0
    while True:
        # Not a count: the attempt of a gateway that is lost may run still.
        name, num_before = f"{request.id}.{secrets.token_hex(4)}", len(generated)
        attempt = dataclasses.replace(request, id=name, generated_ids=tuple(generated))
        try:
            async with contextlib.aclosing(backend.steps(attempt, unread)) as steps:
                async for step in steps:
                    generated += step.token_ids
                    # What a request that moved finds cached was counted where it began.
                    yield step._replace(cached_tokens=0) if attempt.generated_ids else step
            return
        except ReplicaDeadError:
            refusals += 1
            if refusals > MAX_REFUSALS:
                raise
            await asyncio.sleep(REFUSED_PAUSE_S)
        except ReplicaLostError as error:
            fruitless = 0 if len(generated) > num_before else fruitless + 1
            if fruitless >= MAX_FRUITLESS_LOSSES:
                raise PoisonError(
                    f"{fruitless} replicas in a row were lost with this request and no token of an "
                    "answer; it is not tried on another"
                ) from error
            await asyncio.sleep(_LOSS_PAUSE_S * 5**fruitless)


async def follow_all(
    backend: Backend, jobs: Sequence[Job], untaken: list[Delta]
) -> AsyncGenerator[Delta, None]:
    """The answers to several jobs at once, as they come; the first error ends all.

    A client that reads slowly leaves much behind when it goes. What had come by then, and was not
    taken from here, is put into `untaken`, for it was generated all the same.
    """
    left: list[Delta] = []
    sources = [follow(backend, job, i, left) for i, job in enumerate(jobs)]
    source = sources[0] if len(sources) == 1 else merged(sources, left)
    try:
        async with contextlib.aclosing(source) as deltas:
            async for delta in deltas:
                yield delta
    except (asyncio.CancelledError, GeneratorExit):
        untaken += left
        raise
