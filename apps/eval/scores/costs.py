"""What the judges' calls cost and how fast they came, from the stored responses."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from apps.eval.calls import journal
from apps.eval.calls.lines import ResponseLine
from apps.eval.figures.judges import CostRow, UnansweredCalls
from apps.eval.judging.offline import is_offline


def costs(records: Iterable[ResponseLine]) -> list[CostRow]:
    """One row per judge that was called here; repeats and unreadable responses are paid for too."""
    by_judge: dict[str, list[ResponseLine]] = defaultdict(list)
    for record in records:
        is_free = record.get("is_imported") or record.get("is_computed")
        if not is_offline(record["judge"]) and not is_free:
            by_judge[record["judge"]].append(record)
    return [_row(judge, mine) for judge, mine in sorted(by_judge.items())]


def unanswered(directory: str) -> UnansweredCalls:
    """What was paid for perhaps, and is in no row."""
    intents, responses = journal.read_intents(directory), journal.read_raw(directory)
    priced = [usd for usd in journal.unknown_attempts(intents, responses).values() if usd]
    return UnansweredCalls(calls=len(priced), usd=sum(priced))


def _row(judge: str, records: Sequence[ResponseLine]) -> CostRow:
    # A batch's responses have no latency of their own.
    latencies_s = [s for r in records if (s := r.get("latency_s")) is not None]
    p50, p95 = np.quantile(latencies_s, [0.5, 0.95]) if latencies_s else (None, None)
    usd = sum(record["usd"] for record in records)
    return CostRow(
        judge=judge,
        calls=len(records),
        prompt_tokens=sum(record["usage"]["prompt_tokens"] for record in records),
        completion_tokens=sum(record["usage"]["completion_tokens"] for record in records),
        usd=usd,
        estimated_calls=sum(bool(record.get("is_estimated")) for record in records),
        usd_per_1000_calls=1000.0 * usd / len(records),
        latency_p50_s=None if p50 is None else round(float(p50), 3),
        latency_p95_s=None if p95 is None else round(float(p95), 3),
        busiest_minute_calls=busiest_minute([record["created"] for record in records]),
    )


def busiest_minute(created_s: Sequence[float]) -> int:
    """Most responses within any 60 s; unlike a mean, runs and kills in between do not dilute it."""
    times_s = np.sort(np.asarray(created_s, dtype=np.float64))
    ends = np.searchsorted(times_s, times_s + 60.0, side="left")
    return int((ends - np.arange(len(times_s))).max(initial=0))
