"""One request until it has an answer: for questions and answers, which nobody counts in dollars.

Judge calls take judging/loop.py's way instead, where every try is written down and paid for once.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from typing import cast

from apps.common.command.events import Bar
from apps.eval.calls.client import Client, complete
from apps.eval.calls.failure import PAID_TRIES, CallFailure
from apps.eval.calls.gate_pool import GatePool
from apps.eval.calls.lines import Message, Parameters
from apps.eval.calls.outage import EndpointLostError, Outage
from apps.eval.calls.rate_gate import Limits, Outcome
from apps.eval.calls.reply import Reply

MAX_WAIT_S = 30.0
UNLIMITED_PER_MIN = 1e12
_HOLDER = "questions"

Gates = dict[tuple[str | None, str | None, Limits], GatePool]
"""by URL, key and limits: models of one account share what it allows"""


class Asker:
    """Asks one endpoint, many at a time, within what its account allows."""

    def __init__(
        self, client: Client, concurrency: int, max_attempts: int, bar: Bar, gates: Gates
    ) -> None:
        """`concurrency` holds where the endpoint states none; failures show on `bar`."""
        self.client = client
        self._max_attempts = max_attempts
        self._bar = bar
        own = client.endpoint.limits
        self.concurrency = own.concurrency or concurrency
        limits = Limits(
            requests_per_min=own.requests_per_min or UNLIMITED_PER_MIN,
            tokens_per_min=own.tokens_per_min or UNLIMITED_PER_MIN,
            concurrency=self.concurrency,
        )
        account = client.endpoint.base_url, client.endpoint.api_key, limits
        self._gate = gates.setdefault(account, GatePool([limits]))
        self._refusal: CallFailure | None = None
        now_s = time.monotonic()
        self._outage = Outage(max_s=limits.max_outage_s, last_ok_s=now_s)
        # Whoever refuses for the rate is there, so it gets the time of one that has answered.
        self._refused_rate = Outage(max_s=limits.max_outage_s, last_ok_s=now_s, has_answered=True)

    async def ask(self, messages: Sequence[Message], settings: Parameters) -> Reply:
        """The reply; raises the last CallFailure, and at once one that no repetition can mend.

        A refusal for the rate is no try: those may last as long as an outage.
        """
        tries = paid = 0
        for sent in itertools.count(1):
            try:
                return await self._attempt(messages, settings)
            except CallFailure as failure:
                tries += failure.kind != "rate_limited"
                paid += failure.may_be_billed
                if failure.kind == "fatal":
                    self._refusal = failure
                is_last = tries == self._max_attempts or paid == PAID_TRIES
                if failure.kind in ("fatal", "rejected") or is_last:
                    raise
                self._bar.advance(0, last_failure=failure.sentence)
                await asyncio.sleep(_wait_s(failure, sent + paid))
        raise AssertionError("unreachable")

    async def _attempt(self, messages: Sequence[Message], settings: Parameters) -> Reply:
        """One request through the gate; an outage that lasts is fatal."""
        prompt_bytes = sum(len(message["content"].encode()) for message in messages)
        tokens = prompt_bytes // 4 + cast(int, settings["max_tokens"])
        try:
            number = await self._gate.acquire(_HOLDER, tokens)
        except EndpointLostError as lost:
            raise CallFailure("fatal", lost.sentence) from None
        outcome: Outcome = "cancelled"
        unused_tokens, wait_s = tokens, None
        try:
            if self._refusal is not None:  # every request would be refused as that one was
                raise self._refusal
            reply = await complete(self.client, messages, settings)
            outcome, unused_tokens = "ok", tokens - reply.used_tokens(tokens)
            self._outage.end(time.monotonic())
            self._refused_rate.end(time.monotonic())
            return reply
        except CallFailure as failure:
            outcome, wait_s = failure.outcome, failure.retry_after_s
            if outcome != "cancelled":
                self._check_outage(failure)
            raise
        finally:
            await self._gate.release(_HOLDER, number, outcome, unused_tokens, wait_s)

    def _check_outage(self, failure: CallFailure) -> None:
        """The gate sees no outage of one model while others of its account answer."""
        outage = self._refused_rate if failure.kind == "rate_limited" else self._outage
        outage.failures_in_row += 1
        outage.losses_in_row += failure.kind == "garbled"
        if outage.is_too_dear:
            raise CallFailure(
                "fatal",
                f"{outage.losses_in_row} replies in a row were paid and say nothing; last: "
                f"{failure.sentence}",
            ) from failure
        failures = outage.failures_in_row
        if (outage_s := outage.too_long_s(time.monotonic(), failures)) is not None:
            raise CallFailure(
                "fatal",
                f"{self.client.endpoint.model} has answered nothing for {outage_s:.0f} s "
                f"({failures} calls failed in a row; last: {failure.sentence})",
            ) from failure


def _wait_s(failure: CallFailure, sent: int) -> float:
    """As long as the endpoint asks, or ever longer; not all at the same time."""
    if failure.retry_after_s:
        return failure.retry_after_s * random.uniform(1.0, 1.25)
    return min(MAX_WAIT_S, 0.5 * 2 ** min(sent, 10)) * random.uniform(0.5, 1.0)
