"""The Batch API as a backend: half the price, within a day, under the same journal and budget.

Every call is reserved and written to the intents before its file is uploaded. A batch is noted in
judgments/batches.jsonl before and after it is created. So a run that was killed in between finds it
again, by its input file, instead of paying for a second one.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict, cast

import orjson

from apps.common.command.run_all import run_all
from apps.common.files import parts, storage
from apps.common.json_value import JsonObject
from apps.eval.calls import styles
from apps.eval.calls.budget import BudgetExhaustedError
from apps.eval.calls.client import Endpoint, read_response
from apps.eval.calls.failure import (
    PAID_TRIES,
    UNFIT,
    WRITTEN_CODES,
    CallFailure,
    is_filtered,
)
from apps.eval.calls.journal import Journal, judgments_dir, read_raw
from apps.eval.calls.json_body import load, stated_status, told
from apps.eval.calls.lines import Parameters
from apps.eval.calls.outage import EndpointLostError
from apps.eval.calls.parameters import ParameterFit
from apps.eval.judging.asking import asks, remaining, standings, unreadable_judges
from apps.eval.judging.call import Call
from apps.eval.judging.job import Job, OnProgress, RunResult, Tally
from apps.eval.judging.local import local_reply

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MAX_REQUESTS = 10_000
_ENDED = {"completed", "failed", "expired", "cancelled"}
_LOCAL = "local"
"""holds in the journal what nobody is asked for"""


def batches_path(directory: str) -> str:
    return storage.join(judgments_dir(directory), "batches.jsonl")


async def run(job: Job, on_progress: OnProgress, poll_s: float) -> RunResult:
    """Collects what earlier runs submitted, then submits what is missing, until all is read."""
    writer = Journal(job.directory, job.max_usd)
    await writer.begin()
    tally = Tally()

    async def ask(judge: str, endpoint: Endpoint) -> None:
        mine = [call for call in job.calls if call.judge == judge and not call.is_equal]
        try:
            async with _connect(endpoint) as client:
                batches = _Batches(client, judge, endpoint, job, writer, tally)
                await batches.ask(mine, on_progress, poll_s)
        except EndpointLostError as error:
            tally.lost[judge] = error
            await writer.forget(judge)  # what is in flight may be billed, and nobody waits for it

    try:
        await _store_local(job.calls, writer, tally)
        await run_all(ask(judge, endpoints[0]) for judge, endpoints in job.endpoints.items())
        _, spent_usd = await writer.state()
    finally:
        writer.close()
    return RunResult(tally=tally, spent_usd=spent_usd, gate={})


async def _store_local(calls: Iterable[Call], writer: Journal, tally: Tally) -> None:
    """The judgments that nobody need be asked for."""
    stored = {record["key"] for record in read_raw(writer.directory)}
    for call in calls:
        reply = local_reply(call)
        if reply is not None and call.key not in stored:
            attempt = await writer.open_call(_LOCAL, call.bound(None))
            line = call.free_line(reply, created_s=time.time())
            await writer.store({**line, "is_computed": True}, attempt)
            tally.stored += 1


def _connect(endpoint: Endpoint) -> "AsyncOpenAI":
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    return AsyncOpenAI(
        api_key=endpoint.api_key or "none",
        base_url=endpoint.base_url,
        default_headers=dict(endpoint.headers),
        # A redirect would take the calls, and headers with keys, to another host.
        http_client=DefaultAsyncHttpxClient(follow_redirects=False, timeout=endpoint.timeout_s),
    )


class _Note(TypedDict):
    """A line of batches.jsonl; later lines of an input file add to the earlier ones."""

    input_file: str
    judge: NotRequired[str]
    """whose account holds it"""
    attempts: NotRequired[dict[str, int]]
    batch: NotRequired[str]
    ended: NotRequired[str]
    """the state in which it ended"""


class _Batches:
    """One judge's batches."""

    def __init__(
        self,
        client: "AsyncOpenAI",
        judge: str,
        endpoint: Endpoint,
        job: Job,
        writer: Journal,
        tally: Tally,
    ) -> None:
        self._client = client
        self._judge = judge
        """whose name is its holder's in the journal too"""
        self._endpoint = endpoint
        self.fit = ParameterFit(endpoint.model, endpoint.drop, endpoint.rename)
        self._job = job
        self._writer = writer
        self._tally = tally
        self.paid_tries: Counter[str] = Counter()
        """by key: what was paid for in this run without a reply"""
        self._last_error: str | None = None
        self._refused: set[str] = set()
        """keys of requests that are at fault themselves: sent again, they would be refused again"""
        self._notes = batches_path(job.directory)

    async def ask(self, calls: Sequence[Call], on_progress: OnProgress, poll_s: float) -> None:
        """Asks until all has a final response; raises EndpointLostError where none will come."""
        from openai import OpenAIError  # 1.4 s of CPU that only batches need

        persistence = self._job.persistence
        try:
            await self.finish_earlier(poll_s)
            # What an earlier run's settings made of a request may have been mended since.
            self._refused.clear()
            self._tally.rejected.pop(self._judge, None)
            for _ in range(persistence.max_attempts + persistence.max_asks):
                left = [call for call in self._left(calls) if self._may_be_answered(call)]
                if not left or self._judge in self._tally.stopped:
                    break
                for start in range(0, len(left), MAX_REQUESTS):
                    await self.submit(left[start : start + MAX_REQUESTS], poll_s)
                on_progress(*await self._writer.state(), {})
                self._refuse_useless(calls)
        except OpenAIError as error:
            raise EndpointLostError(
                f"the Batch API refuses ({' '.join(str(error).split())[:300]}); mend what it names "
                "and run the same command again: a batch that was submitted is collected, not paid "
                "twice"
            ) from None
        finally:
            self._tally.learned |= {f"{self._judge}: {told}" for told in self.fit.learned}
        left = self._left(calls)
        # One with more room leaves the judgment cut, as it was.
        num_cut = sum(call.key in self._refused and call.is_longer for call in left)
        self._tally.unreadable += num_cut
        self._tally.failed += len(left) - num_cut

    def _may_be_answered(self, call: Call) -> bool:
        return self.paid_tries[call.key] < PAID_TRIES and call.key not in self._refused

    def _left(self, calls: Sequence[Call]) -> list[Call]:
        """What is to be sent next."""
        max_asks = self._job.persistence.max_asks
        return remaining(calls, read_raw(self._job.directory), max_asks)

    def _refuse_useless(self, calls: Sequence[Call]) -> None:
        """Raises EndpointLostError where nothing was answered, or nothing can be read."""
        if self._tally.is_refused(self._judge):
            raise EndpointLostError(
                f"the Batch API answers no request for {self._judge!r} ({self._last_error}); "
                "mend the settings it names, or the URL, and run again"
            )
        responses = read_raw(self._job.directory)
        known = standings(calls, responses, self._job.persistence.max_asks)
        if error := unreadable_judges(known).get(self._judge):
            raise error

    async def submit(self, calls: list[Call], poll_s: float) -> None:
        attempts = await self._reserve(calls)
        sent = {call.key: call for call in calls if call.key in attempts}
        if not sent:
            return
        lines = b"".join(orjson.dumps(self._request(call)) + b"\n" for call in sent.values())
        try:
            file = await self._client.files.create(file=("calls.jsonl", lines), purpose="batch")
        except Exception:
            await self._release(attempts)
            raise
        self._note(input_file=file.id, judge=self._judge, attempts=attempts)
        batch = await self._client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        self._note(input_file=file.id, batch=batch.id)
        await self._collect(batch.id, sent, attempts, poll_s)

    async def _reserve(self, calls: Sequence[Call]) -> dict[str, int]:
        """The attempts of as many calls as the budget has room for, in few writes.

        The first waits for what other judges have in flight: little of that may be spent.
        """
        bounds = [call.bound(self._job.prices[call.judge]) for call in calls]
        attempts: dict[str, int] = {}
        reserve = self._writer.open_calls
        try:
            while left := bounds[len(attempts) :]:
                taken = await reserve(self._judge, left)
                reserve = self._writer.open_batch
                attempts |= {one.key: number for one, number in zip(left, taken, strict=False)}
        except BudgetExhaustedError as error:
            self._tally.stopped[self._judge] = error.sentence
        return attempts

    async def finish_earlier(self, poll_s: float) -> None:
        """Batches that a killed run left behind: their responses are paid for."""
        notes: dict[str, _Note] = {}
        for record in cast(list[_Note], parts.records(self._notes)):
            notes.setdefault(record["input_file"], record).update(record)
        open_notes = {
            input_file: note
            for input_file, note in notes.items()
            if "ended" not in note and note.get("judge", self._judge) == self._judge
        }
        if not open_notes:
            return
        known = {call.key: call for call in self._sent_before()}
        listed = [batch async for batch in self._client.batches.list(limit=100)]
        by_file = {batch.input_file_id: batch.id for batch in listed}
        stored = {record["key"] for record in read_raw(self._job.directory)}
        for input_file, note in open_notes.items():
            attempts = {
                k: attempt for k, attempt in note.get("attempts", {}).items() if k not in stored
            }
            self._writer.adopt(self._judge, self._judge, attempts)
            batch_id = note.get("batch") or by_file.get(input_file)
            if batch_id is None:
                await self._release(attempts)
                self._note(input_file=input_file, ended="never created")
                continue
            sent = {key: known[key] for key in attempts if key in known}
            await self._collect(batch_id, sent, attempts, poll_s)

    async def _collect(
        self, batch_id: str, sent: dict[str, Call], attempts: dict[str, int], poll_s: float
    ) -> None:
        batch = await self._client.batches.retrieve(batch_id)
        while batch.status not in _ENDED:
            await asyncio.sleep(poll_s)
            batch = await self._client.batches.retrieve(batch_id)
        lines = list[bytes]()
        for file in (batch.output_file_id, batch.error_file_id):  # refusals lie in the second
            if file:
                lines += (await self._client.files.content(file)).content.splitlines()
        # Before a first refusal has taught what the others were refused for too.
        fitted = {key: self.fit.fitted(call.parameters) for key, call in sent.items()}
        stores = (self._store(line, sent, fitted, attempts) for line in lines)
        read = await asyncio.gather(*stores)
        is_open = not all(read)  # whose response a line that says nothing held
        await self._release(attempts, may_be_billed=is_open)
        self._note(input_file=batch.input_file_id, ended=batch.status)
        if batch.status == "failed":
            raise EndpointLostError(
                f"the endpoint refused batch {batch_id} ({batch.errors}); mend what it names, or "
                "use --backend live"
            )

    async def _store(
        self,
        data: bytes,
        sent: dict[str, Call],
        fitted: dict[str, Parameters],
        attempts: dict[str, int],
    ) -> bool:
        """Keeps what a line of the output says, once; False for a line that says nothing."""
        line = _output_line(data)
        if line is None:
            return not data.strip()
        key, response = str(line["custom_id"]), line.get("response")
        if key not in attempts or not isinstance(response, dict) or not response:
            return True
        body, status = orjson.dumps(response.get("body")), response.get("status_code")
        status = status if isinstance(status, int) else 200
        if key in sent:
            await self._store_response(sent[key], fitted[key], attempts, status, body)
        elif _was_written(status, told(body)[1]):  # for a call that is planned no more
            await self._fail_paid(key, attempts.pop(key))
        return True

    async def _store_response(
        self,
        call: Call,
        parameters: Parameters,
        attempts: dict[str, int],
        status: int,
        body: bytes,
    ) -> None:
        stated, (message, code) = stated_status(status, body), told(body)
        if stated in UNFIT and not is_filtered(stated, message, code):
            if self.fit.learn(message, code, parameters):
                return
            if self.fit.without_form(parameters) is not None:
                self.fit.drop_form()
            elif code not in WRITTEN_CODES:
                self._refused.add(call.key)
        try:
            reply = read_response(self._endpoint.style, stated, {}, body)
        except CallFailure as failure:
            self._last_error = self._tally.last_error = failure.sentence
            # One for the verdict alone, or with more room, may be refused for what only it holds.
            kinds = ("garbled", "fatal") if call.ask else ("garbled", "rejected", "fatal")
            self._tally.rejected[call.judge] += failure.kind in kinds
            if failure.may_be_billed and _was_written(status, code):
                await self._fail_paid(call.key, attempts.pop(call.key))
            return
        record = call.response_line(reply, self._job.prices[call.judge], created_s=time.time())
        await self._writer.store(record, attempts.pop(call.key))
        self._tally.count_reply(call.judge)
        self._tally.estimated += "is_estimated" in record

    async def _fail_paid(self, key: str, attempt: int) -> None:
        self.paid_tries[key] += 1
        self._tally.paid_in_vain += 1
        await self._writer.fail_call(key, attempt, may_be_billed=True)

    async def _release(self, attempts: dict[str, int], may_be_billed: bool = False) -> None:
        """Ends attempts without a response."""
        if may_be_billed:
            await asyncio.gather(*(self._fail_paid(*one) for one in attempts.items()))
            return
        ends = [self._writer.fail_call(*one, may_be_billed=False) for one in attempts.items()]
        await asyncio.gather(*ends)

    def _note(self, **record: object) -> None:
        parts.append(self._notes, orjson.dumps(record))

    def _request(self, call: Call) -> dict[str, object]:
        parameters, model = self.fit.fitted(call.parameters), self._endpoint.model
        return {
            "custom_id": call.key,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": styles.body(self._endpoint.style, model, call.sent_messages, parameters),
        }

    def _sent_before(self) -> Iterator[Call]:
        """Every call that an earlier run may have submitted."""
        stored = {record["key"]: record for record in read_raw(self._job.directory)}
        for call in self._job.calls:
            yield from (ask for ask, _ in asks(call, stored, self._job.persistence.max_asks))


def _was_written(status: int, code: str | None) -> bool:
    """A failed request of a batch is not billed, unless something was made of it."""
    return status < 300 or code in WRITTEN_CODES


def _output_line(data: bytes) -> JsonObject | None:
    """A line of a batch's output; None for one that names no request."""
    try:
        line = load(data)
    except ValueError:
        return None
    return line if isinstance(line, dict) and "custom_id" in line else None
