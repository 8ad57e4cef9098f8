"""Answers of a pool: by whichever member is well, and by others when that one is lost.

A whole answer is asked for again. A stream goes on from what the client has of it, where a member
can do that; where none can, its last event says so.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import TypeVar

from starlette.types import Send

from apps.serve.answer.choices import Head, Usage
from apps.serve.answer.merge import merged
from apps.serve.client import GOES_ON_HEADER
from apps.serve.errors import ApiError
from apps.serve.gateway.account import Account
from apps.serve.gateway.attempt import (
    Attempt,
    Chunk,
    Json,
    MemberLostError,
    MemberRefusedError,
)
from apps.serve.gateway.continued import ChoiceSoFar, can_continue, continued
from apps.serve.gateway.forward import limited_body
from apps.serve.gateway.respond import DONE, LivingResponse, api_error, event, send_part, send_whole
from apps.serve.gateway.turns import Turns
from apps.serve.model.pool import Member, PoolEntry
from apps.serve.request.schemas import ChatRequest, CompletionRequest

T = TypeVar("T")


class PooledAnswer(LivingResponse):
    def __init__(
        self, account: Account, request: ChatRequest | CompletionRequest, pool: PoolEntry
    ) -> None:
        self._body: Json = limited_body(request, pool.config)
        self._is_chat = isinstance(request, ChatRequest)
        self._head = Head.new("chatcmpl" if self._is_chat else "cmpl", pool.config.name)
        super().__init__(account, pool.config, self._head.id)
        self._request = request
        self._choices = [ChoiceSoFar() for _ in range(_num_choices(request))]
        self._usage = Usage(0)
        self._pool = pool

    async def _respond(self, send: Send) -> None:
        is_stream = bool(self._request.stream)
        async with self._with_comments(send, is_stream):
            try:
                await (self._stream(send) if is_stream else self._whole(send))
            except Exception as error:
                await self._tell(send, api_error(error))

    async def _whole(self, send: Send) -> None:
        turns = Turns(self._pool)
        while True:
            with self._account.waiting():
                member = await turns.next(self._or_else(self._body))
            attempt = self._attempt(member, self._body)
            try:
                with turns.taken(member):
                    body = await _unless_gone(attempt.whole(), member)
            except (MemberLostError, MemberRefusedError) as error:
                turns.failed(member, error)
                continue
            finally:  # what it used counts whatever its end
                self._count(member, attempt)
            self._account.first_token()
            answer = {**body, "id": self._head.id, "model": self._head.model}
            await send_whole(send, 200, answer, {"x-request-id": self._head.id})
            return

    async def _stream(self, send: Send) -> None:
        strand = self._strand(range(len(self._choices)), self._body)
        async with contextlib.aclosing(strand) as all_pieces:
            is_first = True
            async for pieces in all_pieces:
                if is_first:
                    self._account.first_token()
                is_first = False
                await self._begin_stream(send)
                await self._send_events(send, self._event(pieces))
        tail = DONE
        if self._request.wants_usage:
            tail = self._event([], self._usage.body()) + DONE
        await send_part(send, tail, more=False)

    def _event(self, pieces: Sequence[Json], usage: Json | None = None) -> bytes:
        kind = "chat.completion.chunk" if self._is_chat else "text_completion"
        body = self._head.body(kind, list(pieces))
        return event({**body, "usage": usage} if usage is not None else body)

    def _more_headers(self) -> Sequence[tuple[bytes, bytes]]:
        """For the client that loses this gateway: it has the text, and nobody else has."""
        (first, *others), members = self._choices, self._pool.members.values()
        is_plain = self._is_chat and not others and can_continue(self._request, first)
        if is_plain and any(member.continues for member in members):
            return ((GOES_ON_HEADER.encode(), b"text"),)
        return ()

    async def _strand(
        self, indices: Sequence[int], body: Json
    ) -> AsyncGenerator[Sequence[Json], None]:
        """Pieces of these choices, which `body` asks for in this order, until all are finished."""
        turns = Turns(self._pool)
        while True:
            with self._account.waiting():
                member = await turns.next(self._or_else(body))
            try:
                with turns.taken(member):
                    made = self._pieces(member, indices, body)
                    async with contextlib.aclosing(made) as all_pieces:
                        async for pieces in all_pieces:
                            turns.gets_on()
                            yield pieces
                return
            except (MemberLostError, MemberRefusedError) as error:
                turns.failed(member, error)
            if not any(self._choices[i].has_begun for i in indices):
                continue
            left = [i for i in indices if not self._choices[i].is_finished]
            if not left:
                return
            if len(indices) == 1:
                body = self._rest_of(indices[0])
                continue
            strands = [self._strand([i], self._rest_of(i)) for i in left]
            async with contextlib.aclosing(merged(strands)) as all_pieces:
                async for pieces in all_pieces:
                    yield pieces
            return

    def _or_else(self, body: Json) -> ApiError | None:
        """What to say where no member goes on with a text that has begun; None: any will do."""
        if not (self._is_chat and body.get("continue_final_message")):
            return None
        if body is self._body:
            return ApiError(
                400,
                f"No back end of {self._pool.config.name!r} goes on with a message that has begun; "
                "leave continue_final_message out.",
                param="continue_final_message",
            )
        return ApiError(
            503,
            "The server that was answering is gone, and no other of this pool goes on with what "
            "one has begun; send the request again.",
            code="stream_lost",
        )

    def _rest_of(self, index: int) -> Json:
        so_far = self._choices[index]
        if not can_continue(self._request, so_far):
            raise ApiError(
                503,
                "The server that was answering is gone, and what it began is nothing that another "
                "can go on with (tools, a JSON format or several prompts); send the request again.",
                code="stream_lost",
            )
        so_far.begin = len(so_far.text)
        return continued(self._body, self._request, so_far)

    async def _pieces(
        self, member: Member, indices: Sequence[int], body: Json
    ) -> AsyncGenerator[Sequence[Json], None]:
        """Of one attempt. What it used counts whatever its end."""
        attempt = self._attempt(member, body)
        chunks = _until_gone(attempt.chunks(), member)
        try:
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    if pieces := self._taken_in(chunk, indices):
                        yield pieces
        finally:
            self._count(member, attempt)
        if not all(self._choices[i].is_finished for i in indices):
            raise MemberLostError("the stream ended before the answer did")

    def _attempt(self, member: Member, body: Json) -> Attempt:
        return Attempt(member, type(self._request), body, self._account)

    def _taken_in(self, chunk: Chunk, indices: Sequence[int]) -> list[Json]:
        """Its pieces as the client gets them: numbered as it asked, each role once."""
        pieces: list[Json] = []
        for choice in chunk.choices:
            number = choice.get("index")
            if not isinstance(number, int) or not 0 <= number < len(indices):
                raise MemberLostError(f"a choice with the index {number!r}")
            index = indices[number]
            so_far = self._choices[index]
            piece = _without_role(choice) if so_far.has_role else choice
            if piece is None:
                continue
            piece = so_far.placed(piece)
            so_far.take(piece)
            so_far.num_tokens += chunk.num_tokens if choice is chunk.choices[0] else 0
            pieces.append({**piece, "index": index})
        return pieces

    def _count(self, member: Member, attempt: Attempt) -> None:
        """Prompts are the client's once, and paid for at every member that read one."""
        if member.gone.is_set() and not attempt.has_begun:
            return
        usage = attempt.used
        self._usage.prompt_tokens = self._usage.prompt_tokens or usage.prompt_tokens
        self._usage.completion_tokens += usage.completion_tokens
        self._account.spend(usage, member.config.prices)


def _num_choices(request: ChatRequest | CompletionRequest) -> int:
    """A list of strings, or of lists of token ids, is several prompts."""
    prompt = "" if isinstance(request, ChatRequest) else request.prompt
    is_several = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
    return (request.n or 1) * (len(prompt) if is_several else 1)


def _without_role(choice: Json) -> Json | None:
    """None where nothing else is in it."""
    delta = choice.get("delta")
    if not isinstance(delta, dict) or "role" not in delta:
        return choice
    rest = {name: value for name, value in delta.items() if name != "role" and value}
    return {**choice, "delta": rest} if rest or choice.get("finish_reason") else None


async def _unless_gone(work: Coroutine[None, None, T], member: Member) -> T:
    """Raises MemberLostError as soon as nothing can be hoped for from the member."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(member.gone.wait())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise MemberLostError(f"{member.name} is gone")
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _until_gone(
    chunks: AsyncGenerator[Chunk, None], member: Member
) -> AsyncGenerator[Chunk, None]:
    async def next_chunk() -> Chunk | None:
        return await anext(chunks, None)

    async with contextlib.aclosing(chunks):
        while (chunk := await _unless_gone(next_chunk(), member)) is not None:
            yield chunk
