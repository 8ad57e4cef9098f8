"""The life of a chunk of judge calls: gate, reserve, write down, send, store; and again.

Pure asyncio. The gate and the journal are passed in: local objects in tests, actors under Ray.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from apps.common.command.run_all import run_all
from apps.eval.calls import rate_gate
from apps.eval.calls.budget import BudgetExhaustedError
from apps.eval.calls.failure import PAID_TRIES, CallFailure
from apps.eval.calls.lines import Bound, ResponseLine, Status
from apps.eval.calls.outage import LOSSES, EndpointLostError
from apps.eval.calls.reply import Reply
from apps.eval.judging.asking import ask_again
from apps.eval.judging.call import Call
from apps.eval.judging.job import Persistence, Tally
from apps.eval.judging.local import local_reply
from apps.eval.judging.prices import Price
from apps.eval.judging.readability import Readability, UnreadableJudgeError
from apps.eval.protocols.parsing import parse

Result = TypeVar("Result")
Ask = Callable[[Call, int], Awaitable[Reply]]
"""the response to a call, from the endpoint of that number"""


class Gate(Protocol):
    """The endpoints of one judge."""

    async def acquire(self, holder: str, tokens: int) -> int: ...
    async def release(
        self,
        holder: str,
        number: int,
        outcome: rate_gate.Outcome,
        unused_tokens: int = 0,
        retry_after_s: float | None = None,
        lost: str | None = None,
    ) -> None: ...
    async def give_up(self, why: str) -> None: ...
    async def heard(self) -> frozenset[rate_gate.Outcome]: ...


class Ledger(Protocol):
    async def open_call(self, holder: str, bound: Bound) -> int: ...
    async def store(self, record: ResponseLine, attempt: int) -> None: ...
    async def fail_call(self, key: str, attempt: int, may_be_billed: bool) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Makes a chunk's calls: who is asked, under which limits, and where it is written down."""

    ask: Ask
    gates: Mapping[str, Gate]
    """by judge"""
    ledger: Ledger
    prices: Mapping[str, Price | None]
    persistence: Persistence
    holder: str = "local"
    """this chunk's name at the gates and in the ledger"""
    proven: frozenset[str] = frozenset()
    """judges of whom a verdict has been read"""

    async def make(self, calls: Sequence[Call]) -> Tally:
        """Makes all calls; of a judge that is lost on the way, those until then."""
        tally = Tally()
        by_judge: dict[str, list[Call]] = {}
        for call in calls:
            by_judge.setdefault(call.judge, []).append(call)
        await run_all(self._ask_judge(name, mine, tally) for name, mine in by_judge.items())
        return tally

    async def _ask_judge(self, judge: str, calls: Sequence[Call], tally: Tally) -> None:
        """All calls of one judge, whose slowness or end keeps no other one waiting."""
        width = asyncio.Semaphore(self.persistence.width)
        trial = Readability(judge, judge in self.proven)

        async def one(call: Call) -> None:
            async with width:
                if call.repair:
                    async with trial.repair():  # ends its doubt, even where the budget has ended
                        await self._judge(call, trial, tally)
                else:
                    await trial.wait_for_room()
                    await self._judge(call, trial, tally)

        # Verdicts that an earlier run could not read are in doubt: new ones wait for them.
        repairs = [call for call in calls if call.repair]
        for _ in repairs:
            trial.begin_doubt()
        try:
            await run_all(one(call) for call in (*repairs, *(c for c in calls if not c.repair)))
        except EndpointLostError as error:
            tally.lost[judge] = error
            await self.gates[judge].give_up(error.sentence)  # for the other chunks too

    async def _judge(self, call: Call, trial: Readability, tally: Tally) -> None:
        """One judgment, to its end or its judge's budget's; one that is free has no such end."""
        if reply := local_reply(call):
            await self._store_local(call, reply, tally)
        elif call.judge not in tally.stopped:
            try:
                await self._ask(call, trial, tally)
            except BudgetExhaustedError as error:
                tally.stopped[call.judge] = error.sentence

    async def _store_local(self, call: Call, reply: Reply, tally: Tally) -> None:
        attempt = await self.ledger.open_call(self.holder, call.bound(None))
        line = call.free_line(reply, created_s=time.time())
        await self.ledger.store({**line, "is_computed": True}, attempt)
        tally.stored += 1

    async def _ask(self, call: Call, trial: Readability, tally: Tally) -> None:
        """Asks until a response is final: read, refused, or beyond repair."""
        reply = await self._send(call, trial, tally)
        if isinstance(reply, CallFailure):
            if call.ask:  # what it said before stays unreadable
                await self._give_up(call.judge, trial, reply.sentence)
            return
        status = _status(call, reply)
        if status == "ok":
            return await trial.read()
        again = ask_again(call, status, reply.text, self.persistence.max_asks)
        if again is None:
            tally.unreadable += 1
            if status != "refused":
                await self._give_up(call.judge, trial)
        elif status == "truncated":
            await self._ask(again, trial, tally)
        else:
            async with trial.repair():
                await self._ask(again, trial, tally)

    async def _give_up(self, judge: str, trial: Readability, failure: str | None = None) -> None:
        """Leaves a judgment unread. That ends no trial of whom another chunk has read."""
        try:
            trial.give_up(failure)
        except UnreadableJudgeError:
            if "read" not in await self.gates[judge].heard():
                raise
            await trial.read()

    async def _send(self, call: Call, trial: Readability, tally: Tally) -> Reply | CallFailure:
        """One call until it has a stored response; the last failure if it is left."""
        failures = paid = 0
        while True:
            reply = await self._attempt(call, trial, tally)
            if isinstance(reply, Reply):
                return reply
            tally.last_error = reply.sentence
            tally.paid_in_vain += reply.may_be_billed
            if reply.kind == "fatal":
                continue  # at another endpoint of its judge, or the gate tells that none is left
            if await self._is_final(reply, call, tally):
                return reply
            failures += reply.kind != "rate_limited"
            paid += reply.may_be_billed
            if failures == self.persistence.max_attempts or paid == PAID_TRIES:
                tally.failed += 1
                return reply
            # Longer where the last try may be billed: few are left to outlast a proxy's restart.
            await asyncio.sleep(reply.retry_after_s or self._backoff_s(max(1, failures + paid)))

    async def _attempt(self, call: Call, trial: Readability, tally: Tally) -> Reply | CallFailure:
        """One request, from the gate to the disk; once it is sent nothing breaks it off."""
        price, gate = self.prices[call.judge], self.gates[call.judge]
        tokens = _tokens(call)
        number = await gate.acquire(self.holder, tokens)
        while call.ask == 0 and not trial.has_room:  # it has come to doubts at the gate meanwhile
            await gate.release(self.holder, number, "cancelled", tokens)
            await trial.wait_for_room()
            number = await gate.acquire(self.holder, tokens)
        try:
            attempt = await self.ledger.open_call(self.holder, call.bound(price))
        except BaseException:
            await gate.release(self.holder, number, "cancelled", tokens)
            raise
        return await _to_its_end(self._exchange(call, tokens, number, attempt, trial, tally))

    async def _exchange(
        self, call: Call, tokens: int, number: int, attempt: int, trial: Readability, tally: Tally
    ) -> Reply | CallFailure:
        """From the endpoint to the disk."""
        price, gate = self.prices[call.judge], self.gates[call.judge]
        outcome, unused_tokens, wait_s, lost = "cancelled", tokens, None, None
        started_s = time.time()
        try:
            reply = await self.ask(call, number)
            status = _status(call, reply)
            outcome = "read" if status == "ok" else "ok"
            if status == "unparsed" and not call.repair:
                trial.begin_doubt()
            unused_tokens = tokens - reply.used_tokens(tokens)
        except CallFailure as failure:
            reply = failure
            if failure.kind == "fatal":
                lost = _refusal(failure, call.judge)
            outcome, wait_s = failure.outcome, failure.retry_after_s
        finally:
            # Before the response is on disk, so that the next call need not wait for that.
            await gate.release(self.holder, number, outcome, unused_tokens, wait_s, lost)
        if isinstance(reply, Reply):
            line = call.response_line(reply, price, created_s=started_s)
            line["latency_s"] = round(time.time() - started_s, 3)
            await self.ledger.store(line, attempt)
            tally.count_reply(call.judge)
            tally.estimated += "is_estimated" in line
        else:
            await self.ledger.fail_call(call.key, attempt, reply.may_be_billed)
        return reply

    async def _is_final(self, failure: CallFailure, call: Call, tally: Tally) -> bool:
        """True if this call cannot succeed; raises EndpointLostError if none can."""
        # One for the verdict alone, or with more room, may be refused for what only it holds.
        kinds = ("garbled",) if call.ask else ("garbled", "rejected")
        tally.rejected[call.judge] += failure.kind in kinds
        if tally.is_refused(call.judge):
            if not {"read", "ok"} & await self.gates[call.judge].heard():
                raise EndpointLostError(
                    f"the endpoint rejects every request for {call.judge!r}, breaks off, or "
                    f"answers with something else than a reply ({failure.sentence}); mend the "
                    "settings it names, or the URL, and run again"
                )
            tally.answered.add(call.judge)  # in another chunk
        tally.lost_in_row[call.judge] += failure.kind == "garbled"
        if tally.lost_in_row[call.judge] >= LOSSES:
            raise EndpointLostError(
                f"{LOSSES} replies of {call.judge!r} in a row were paid and say nothing "
                f"({failure.sentence}), so it is asked no more; what is stored stays stored: run "
                "the same command again when the endpoint is well"
            )
        if failure.kind != "rejected":
            return False
        # One with more room leaves the judgment cut, as it was.
        tally.failed += not call.is_longer
        tally.unreadable += call.is_longer
        return True

    def _backoff_s(self, failures: int) -> float:
        """Exponential with full jitter (Brooker, "Exponential backoff and jitter", AWS, 2015)."""
        grown_s = self.persistence.first_backoff_s * 2 ** (failures - 1)
        return random.uniform(0.3, 1.0) * min(self.persistence.max_backoff_s, grown_s)


async def _to_its_end(sent: Coroutine[object, object, Result]) -> Result:
    """What a coroutine returns. Where the run ends meanwhile it ends too: its reply is paid for."""
    task = asyncio.create_task(sent)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def _tokens(call: Call) -> int:
    """For the rate: of the prompt, about, and of the longest reply."""
    return call.prompt_tokens_estimate() + call.max_tokens


def _status(call: Call, reply: Reply) -> Status:
    return parse(reply.text, call.form, reply.finish_reason, call.nonce).status


def _refusal(failure: CallFailure, judge: str) -> str:
    advice = failure.advice or (
        "check its URL, its key (OPENAI_BASE_URL and OPENAI_API_KEY for a plain name), the quota "
        "and the model's name"
    )
    return (
        f"the endpoint refuses {judge!r} ({failure.sentence}); {advice}; what is stored stays "
        "stored"
    )
