"""One attempt at a request of a pool, by one of its members.

Whatever kind of back end it is, the answer comes as OpenAI's objects, and its failures as one of
two errors: the member was lost in the middle, or it does not take the request.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple

import aiohttp

from apps.serve.admission.fair_queue import Ticket
from apps.serve.answer.choices import Usage
from apps.serve.answer.generation import Delta, GenerationError, PoisonError, follow_all
from apps.serve.engine.protocol import OverloadedError
from apps.serve.engine.remote import RemoteAnswer
from apps.serve.errors import ApiError
from apps.serve.gateway.account import Account
from apps.serve.gateway.forward import (
    foreign_refusal,
    is_our_fault,
    limited_body,
    refused,
    unreachable,
)
from apps.serve.gateway.plan import Plan, chat_plan, completion_plan
from apps.serve.gateway.respond import api_error, whole_body
from apps.serve.gateway.tally import Tally, choices_of
from apps.serve.model.entry import Entry, RemoteEntry
from apps.serve.model.pool import Member
from apps.serve.replica.exchange import ReplicaLostError
from apps.serve.request.schemas import ChatRequest, CompletionRequest

RequestKind = type[ChatRequest] | type[CompletionRequest]
Json = dict[str, object]


class Chunk(NamedTuple):
    """What a member added to its answer."""

    choices: Sequence[Json]
    num_tokens: int
    """at least so many; a server elsewhere tells how many only at the end"""


class MemberLostError(Exception):
    """It was answering and does not go on."""


class MemberRefusedError(Exception):
    """It does not take this request; another member may."""

    def __init__(self, told: ApiError, is_broken: bool) -> None:
        """Not broken: it has as much to do as it can."""
        super().__init__(told.message)
        self.told = told
        self.is_broken = is_broken


class Attempt:
    def __init__(self, member: Member, kind: RequestKind, body: Json, account: Account) -> None:
        """`body` is the request's, as a client would send it to this member."""
        self._member = member
        self._kind: RequestKind = kind
        self._body = body
        self._account = account
        self.used = Usage(0)
        """at this member so far"""
        self.has_begun = False

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """A stream's. Raises ApiError 400 to 499, MemberRefusedError or MemberLostError."""
        back_end = self._member.back_end
        source = self._remote(back_end) if isinstance(back_end, RemoteEntry) else None
        if isinstance(back_end, Entry):
            source = self._local(back_end)
        assert source is not None
        async with contextlib.aclosing(source):
            async for chunk in source:
                yield chunk

    async def whole(self) -> Json:
        """Raises as `chunks`."""
        back_end = self._member.back_end
        if isinstance(back_end, RemoteEntry):
            async with self._answer(back_end) as answer:
                body = answer.body or {}
                if not isinstance(body.get("choices"), list):
                    self._tally.nothing()
                    raise MemberLostError("an answer without choices")
                self._tally.take(body)
                return body
        plan = await self._plan(back_end)
        async with contextlib.aclosing(self._deltas(back_end, plan)) as deltas:
            async for delta in deltas:
                plan.choices[delta.index].add(delta)
        return await asyncio.to_thread(whole_body, plan, self.used)

    async def _local(self, entry: Entry) -> AsyncGenerator[Chunk, None]:
        plan = await self._plan(entry)
        async with contextlib.aclosing(self._deltas(entry, plan)) as deltas:
            async for delta in deltas:
                yield Chunk(plan.choices[delta.index].add(delta), delta.num_generated)

    async def _plan(self, entry: Entry) -> Plan:
        """In a thread: tokenizing a long prompt would hold up every stream."""
        body = self._kind.model_validate(self._body)
        if isinstance(body, ChatRequest):
            return await asyncio.to_thread(chat_plan, body, entry, None)
        return await asyncio.to_thread(completion_plan, body, entry, None)

    async def _deltas(self, entry: Entry, plan: Plan) -> AsyncGenerator[Delta, None]:
        """With its turn among the other requests to these replicas. A member that gave nothing has
        read nothing."""
        usage = Usage(plan.prompt_tokens, plan.per_prompt)
        untaken: list[Delta] = []

        def count(delta: Delta) -> None:
            self.has_begun, self.used = True, usage
            usage.add(delta)

        owner = self._account.owner
        weight = owner.weight if owner is not None else 1.0
        try:
            ticket = entry.queue.ask(self._account.key, weight, plan.most_tokens, len(plan.jobs))
            with self._account.waiting():
                await _in_time(entry, ticket)
            try:
                generated = follow_all(entry.backend, plan.jobs, untaken)
                async with contextlib.aclosing(generated) as deltas:
                    async for delta in deltas:
                        count(delta)
                        yield delta
            finally:
                entry.queue.leave(ticket)
                for delta in untaken:
                    count(delta)
        except OverloadedError as error:
            raise MemberRefusedError(api_error(error), is_broken=False) from error
        except PoisonError as error:  # what ends replicas here would end others
            raise api_error(error) from error
        except (ReplicaLostError, GenerationError) as error:
            raise MemberLostError(str(error)) from error

    async def _remote(self, entry: RemoteEntry) -> AsyncGenerator[Chunk, None]:
        async with self._answer(entry) as answer:
            if answer.body is not None:
                raise MemberRefusedError(refused(entry.config, answer.status), is_broken=True)
            try:
                async for chunk in answer.events():
                    num_pieces = self._tally.take(chunk)
                    if "error" in chunk:
                        raise MemberLostError(f"{entry.config.name} told of an error")
                    yield Chunk(choices_of(chunk), num_pieces)
            finally:
                self._tally.take_all(answer.untaken())

    def _limited(self, entry: RemoteEntry) -> Json:
        """Its limits are its own: what is too much here may be little for another member."""
        try:
            return limited_body(self._kind.model_validate(self._body), entry.config)
        except ApiError as error:
            raise MemberRefusedError(error, is_broken=False) from error

    @contextlib.asynccontextmanager
    async def _answer(self, entry: RemoteEntry) -> AsyncGenerator[RemoteAnswer, None]:
        """One that is a success, within the member's own limits."""
        route = "chat/completions" if self._kind is ChatRequest else "completions"
        body = await asyncio.to_thread(self._limited, entry)
        self._tally = Tally(body)
        self.used = self._tally.usage
        try:
            async with entry.engine.send(route, body) as answer:
                _check(entry, answer)
                self.has_begun = True
                yield answer
        except (ApiError, MemberRefusedError):
            self._tally.nothing()
            raise
        except OverloadedError as error:
            self._tally.nothing()
            raise MemberRefusedError(api_error(error), is_broken=False) from error
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            if self.has_begun:
                raise MemberLostError(repr(error)) from error
            self._tally.nothing()
            told = unreachable(entry.config, error)
            raise MemberRefusedError(told, is_broken=True) from error


async def _in_time(entry: Entry, ticket: Ticket) -> None:
    """Its turn; a member that has none for too long does not take the request."""
    limit_s = entry.config.limits.queue_timeout_s
    try:
        async with asyncio.timeout(limit_s):
            await entry.queue.turn(ticket)
    except TimeoutError:
        told = ApiError(
            503,
            f"No replica of {entry.config.name!r} was free within {limit_s:g} s.",
            code="model_busy",
            retry_after_s=entry.queue.retry_after_s(),
        )
        raise MemberRefusedError(told, is_broken=False) from None


def _check(entry: RemoteEntry, answer: RemoteAnswer) -> None:
    """A request that this member finds wrong is wrong for others too, unless it says that it is
    the member's own matter."""
    status = answer.status
    if is_our_fault(status) or status in (404, 408) or status >= 500:
        raise MemberRefusedError(refused(entry.config, status), is_broken=True)
    if status == 429:
        told = ApiError(
            429,
            f"The server of {entry.config.name!r} has too much to do.",
            code="overloaded",
            retry_after_s=answer.retry_after_s or 1.0,
        )
        raise MemberRefusedError(told, is_broken=False)
    if status != 200:
        raise foreign_refusal(status, answer.body)
