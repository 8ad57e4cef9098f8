"""What was asked, what came back, and what it cost: two files that only grow, and a budget.

    judgments/intents.jsonl       a line before every send: {key, attempt, usd}, with bound_usd
                                  where more than the call's bound is set aside; a line
                                  {key, attempt, released: true} if it certainly cost nothing
    judgments/raw.jsonl           a line for every response, under its key; never changed
    judgments/parsed-<v>.jsonl    what parser version v reads in raw.jsonl; made again at will

Every line is on disk (fsync) or in the bucket before its caller goes on; callers that arrive
together share one write. What is spent is computed from these files alone: the charge of every
response, and the full reservation of every intent that was neither answered nor released. A call
that was in flight when the power went out may have been billed.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import orjson

from apps.common.files import parts, storage
from apps.eval.calls.budget import Budget
from apps.eval.calls.hold import Hold, hold
from apps.eval.calls.lines import Bound, IntentLine, ParsedLine, ResponseLine, charged_usd


def judgments_dir(directory: str) -> str:
    from apps.common.files.schema import (
        JUDGMENTS_DIR,  # imports pyarrow, which no judging task needs
    )

    return storage.join(directory, JUDGMENTS_DIR)


def raw_path(directory: str) -> str:
    return storage.join(judgments_dir(directory), "raw.jsonl")


def intents_path(directory: str) -> str:
    return storage.join(judgments_dir(directory), "intents.jsonl")


def parsed_path(directory: str, version: str) -> str:
    return storage.join(judgments_dir(directory), f"parsed-{version}.jsonl")


def read_raw(directory: str) -> list[ResponseLine]:
    """Every response of the folder; one whose line is torn counts as not stored."""
    return cast(list[ResponseLine], parts.records(raw_path(directory)))


def read_intents(directory: str) -> list[IntentLine]:
    return cast(list[IntentLine], parts.records(intents_path(directory)))


@dataclass(slots=True)
class _Append:
    path: str
    lines: bytes
    done: asyncio.Future[None]


class Journal:
    """The single writer of a judgments folder, with the budget that it implies."""

    def __init__(self, directory: str, max_usd: float | None) -> None:
        self.directory = directory
        self._raw = raw_path(directory)
        self._intents = intents_path(directory)
        self._budget = Budget(max_usd)
        self._num_stored = 0
        self._unknown: dict[tuple[str, int], float] = {}
        self._next_attempt: dict[str, int] = {}
        self._settled = asyncio.Event()
        self._queue: list[_Append] = []
        self._flusher: asyncio.Task[None] | None = None
        self._hold: Hold | None = None

    async def begin(self) -> None:
        """Takes the folder for this process and reads what it has cost so far."""
        self._hold = await asyncio.to_thread(hold, judgments_dir(self.directory))
        responses, intents = read_raw(self.directory), read_intents(self.directory)
        for record in intents:
            key = record["key"]
            attempts = self._next_attempt.get(key, 0)
            self._next_attempt[key] = max(attempts, record["attempt"] + 1)
        for paid in paid_beside_bound(intents, responses):
            self._budget.see(*paid)
        self._unknown = unknown_attempts(intents, responses)
        charged = sum(map(charged_usd, responses)) + sum(self._unknown.values())
        self._budget.charged_usd = charged

    async def state(self) -> tuple[int, float]:
        """Responses stored since the start, and US dollars charged, certainly or possibly."""
        return self._num_stored, self._budget.charged_usd

    async def open_call(self, holder: str, bound: Bound) -> int:
        """Reserves what the call can cost and writes the intent; returns the attempt's number.

        Waits while calls in flight could still free enough; raises BudgetExhaustedError if not.
        """
        return (await self.open_calls(holder, [bound]))[0]

    async def open_calls(self, holder: str, wanted: Sequence[Bound]) -> list[int]:
        """Takes the first, once there is room for it, and those after it that fit as well.

        Returns their attempts' numbers; raises BudgetExhaustedError if not even the first fits.
        """
        budget = self._budget
        while not budget.fits_beside_others(wanted[0]) and budget.has_calls_in_flight:
            self._settled.clear()
            await self._settled.wait()
        return await self._reserve(holder, wanted, budget.fits_beside_others)

    async def open_batch(self, holder: str, wanted: Sequence[Bound]) -> list[int]:
        """The same for calls that are all sent at once; does not wait for room.

        A batch is asked of OpenAI's own models, whose thinking `max_completion_tokens` bounds.
        """
        return await self._reserve(holder, wanted, self._budget.fits)

    async def _reserve(
        self, holder: str, wanted: Sequence[Bound], fits: Callable[[Bound], bool]
    ) -> list[int]:
        taken = [self._take(holder, wanted[0])]
        for bound in wanted[1:]:
            if not fits(bound):
                break
            taken.append(self._take(holder, bound))
        await self._write_intents(taken)
        return [line["attempt"] for line in taken]

    def _take(self, holder: str, bound: Bound) -> IntentLine:
        attempt = self._next_attempt.get(bound.key, 0)
        usd = self._budget.reserve(holder, bound, attempt)
        self._next_attempt[bound.key] = attempt + 1
        line: IntentLine = {"key": bound.key, "attempt": attempt, "usd": usd}
        if usd > bound.usd:
            line["bound_usd"] = bound.usd
        return line

    async def _write_intents(self, taken: Sequence[IntentLine]) -> None:
        """If this fails, or is cancelled, nothing is sent: what was taken is given back.

        In memory at once, and on disk where that can be: else the next run counts it as sent.
        """
        try:
            await self._append(self._intents, *taken)
        except BaseException as error:
            for line in taken:
                self._settle(line["key"], line["attempt"], 0.0)
            if isinstance(error, Exception):
                with contextlib.suppress(Exception):
                    await self._append(self._intents, *map(_released, taken))
            raise

    def adopt(self, holder: str, judge: str, attempts: dict[str, int]) -> None:
        """Takes over an earlier run's attempts, whose fate will be known: reserved, not charged."""
        for key, attempt in attempts.items():
            usd = self._unknown.pop((key, attempt), 0.0)
            self._budget.charged_usd -= usd
            self._budget.adopt(holder, Bound(key, usd, judge), attempt, usd)

    async def store(self, record: ResponseLine, attempt: int) -> None:
        """Appends a response and turns its reservation into its price."""
        try:
            await self._append(self._raw, record)
            self._num_stored += 1
        finally:  # it is paid, stored or not
            usd = charged_usd(record)
            if reserved := self._budget.reserved(record["key"], attempt):
                self._budget.see(reserved.bound.judge, usd, reserved.bound.usd)
            self._settle(record["key"], attempt, usd)

    async def fail_call(self, key: str, attempt: int, may_be_billed: bool) -> None:
        """Ends an attempt without a response; an unbilled one gives its reservation back.

        Nothing is left to end where the attempt's task was forgotten meanwhile.
        """
        reserved = self._budget.reserved(key, attempt)
        if reserved is None:
            return
        usd = reserved.usd
        try:
            if not may_be_billed:
                await self._append(self._intents, _released({"key": key, "attempt": attempt}))
                usd = 0.0
        finally:  # in full where it could not be written that it was free: so will the next run
            self._settle(key, attempt, usd)

    async def forget(self, holder: str) -> None:
        """Charges in full what a dead task had in flight: it may have been billed."""
        for key, attempt in self._budget.held_by(holder):
            if reserved := self._budget.reserved(key, attempt):
                self._settle(key, attempt, reserved.usd)

    def close(self) -> None:
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def _settle(self, key: str, attempt: int, usd: float) -> None:
        if self._budget.settle(key, attempt, usd):
            self._settled.set()

    def _append(self, path: str, *records: Mapping[str, object]) -> asyncio.Future[None]:
        """Done when all these lines are on disk, or failed with what befell them."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lines = b"".join(orjson.dumps(record) + b"\n" for record in records)
        self._queue.append(_Append(path, lines, done))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return done

    async def _flush(self) -> None:
        while self._queue:
            batch, self._queue = self._queue, []
            try:
                failed = await asyncio.to_thread(self._write, batch)
            except asyncio.CancelledError:
                for item in batch:
                    item.done.cancel()
                raise
            for item in batch:
                if item.done.done():  # its caller was cancelled meanwhile
                    continue
                if error := failed.get(item.path):
                    item.done.set_exception(error)
                else:
                    item.done.set_result(None)

    def _write(self, batch: Iterable[_Append]) -> dict[str, Exception]:
        """Each file by itself; of those that failed, why: it is told to their callers alone.

        Whose intent is written while the folder is ours may send.
        """
        by_path: dict[str, list[bytes]] = {}
        for item in batch:
            by_path.setdefault(item.path, []).append(item.lines)
        failed: dict[str, Exception] = {}
        for path, lines in by_path.items():
            try:
                parts.append(path, b"".join(lines))
                if path == self._intents and self._hold is not None:
                    self._hold.check()
            except Exception as error:
                failed[path] = error
        return failed


def _released(line: IntentLine) -> IntentLine:
    """Says that an attempt certainly cost nothing."""
    return {"key": line["key"], "attempt": line["attempt"], "released": True}


def bound_usd(line: IntentLine) -> float:
    """What a call costs at most, if its endpoint keeps to `max_tokens`."""
    return line.get("bound_usd", line.get("usd", 0.0))


def paid_beside_bound(
    intents: Iterable[IntentLine], responses: Iterable[ResponseLine]
) -> Iterator[tuple[str, float, float]]:
    """(judge, US dollars, the most that it should have been) of every response."""
    bounds = {record["key"]: bound_usd(record) for record in intents if "usd" in record}
    for record in responses:
        yield record["judge"], charged_usd(record), bounds.get(record["key"], 0.0)


def unknown_attempts(
    intents: Iterable[IntentLine], responses: Iterable[ResponseLine]
) -> dict[tuple[str, int], float]:
    """Reserved dollars of attempts whose fate is unknown, such as those in flight at a kill.

    Each response answers one attempt of its key. Two of a key have one when a run that was taken
    over still heard from its endpoint: attempts 0, 1 and 2 with two responses leave attempt 0.
    """
    unknown: dict[str, dict[int, float]] = {}
    for record in intents:
        attempts = unknown.setdefault(record["key"], {})
        if record.get("released"):
            attempts.pop(record["attempt"], None)
        else:
            attempts[record["attempt"]] = record.get("usd", 0.0)
    for key, count in Counter(record["key"] for record in responses).items():
        attempts = unknown.get(key, {})
        for attempt in sorted(attempts)[-count:]:
            del attempts[attempt]
    return {(key, n): usd for key, attempts in unknown.items() for n, usd in attempts.items()}


def write_parsed(
    directory: str, parse_record: Callable[[ResponseLine], ParsedLine], version: str
) -> int:
    """Parses every stored response anew, by parser `version`; returns how many."""
    records = read_raw(directory)
    if not records:
        return 0
    lines = [orjson.dumps(parse_record(record)) + b"\n" for record in records]
    storage.write_atomic(parsed_path(directory, version), b"".join(lines))
    return len(records)
