"""What has been asked about each judgment, and whether anything is asked next."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from apps.eval.calls.lines import ResponseLine, Status
from apps.eval.calls.parameters import REPLY_FORM
from apps.eval.judging.call import Call
from apps.eval.judging.readability import (
    UNREADABLE_TO_STOP,
    UnreadableJudgeError,
    unreadable_judge,
)
from apps.eval.protocols.parsing import parse_record
from apps.eval.protocols.repair import repair_messages, response_format

_UNREADABLE = ("unparsed", "truncated")


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What is known of one judgment."""

    call: Call
    status: Status | None
    """of its last response; None before the first"""
    next_call: Call | None
    """what is sent next; None where the last response is final"""


def ask_again(call: Call, status: Status, said: str, max_asks: int) -> Call | None:
    """The next request about a judgment; None where its response is final.

    The same request at temperature 0 would be answered the same. So a judgment that was cut gets
    twice the room, and one that cannot be read is asked once for its verdict alone. A refusal is
    the judge's last word.
    """
    if status == "truncated" and call.ask + 1 < max_asks:
        room = {**call.parameters, "max_tokens": 2 * call.max_tokens}
        return replace(call, ask=call.ask + 1, parameters=room)
    if status == "unparsed" and not call.repair:
        form = {**call.parameters, REPLY_FORM: response_format(call.form)}
        repair = repair_messages(call.form, said)
        return replace(call, ask=call.ask + 1, repair=repair, parameters=form)
    return None


def asks(
    call: Call, stored: Mapping[str, ResponseLine], max_asks: int
) -> Iterator[tuple[Call, Status | None]]:
    """Every request about a judgment with what came of it; None for one still to be sent."""
    current: Call | None = call
    while current is not None:
        record = stored.get(current.key)
        if record is None:
            yield current, None
            return
        status = parse_record(record)["status"]
        yield current, status
        current = ask_again(current, status, record["response_text"], max_asks)


def remaining(
    calls: Iterable[Call], responses: Iterable[ResponseLine], max_asks: int
) -> list[Call]:
    """What is still to be sent: the next request about every judgment that is not final."""
    known = standings(calls, responses, max_asks)
    return [one.next_call for one in known if one.next_call is not None]


def standings(
    calls: Iterable[Call], responses: Iterable[ResponseLine], max_asks: int
) -> list[Standing]:
    """One per judgment, in their order."""
    stored = {record["key"]: record for record in responses}
    return [_standing(call, stored, max_asks) for call in calls]


def _standing(call: Call, stored: Mapping[str, ResponseLine], max_asks: int) -> Standing:
    last: Status | None = None
    for ask, status in asks(call, stored, max_asks):
        if status is None:
            return Standing(call=call, status=last, next_call=ask)
        last = status
    return Standing(call=call, status=last, next_call=None)


def unreadable_judges(standings: Iterable[Standing]) -> dict[str, UnreadableJudgeError]:
    """Those whose trial has ended without a readable verdict."""
    lost: dict[str, UnreadableJudgeError] = {}
    for judge, known in by_judge(standings).items():
        unreadable = [one for one in known if one.next_call is None and one.status in _UNREADABLE]
        if len(unreadable) >= UNREADABLE_TO_STOP and judge not in proven(known):
            lost[judge] = unreadable_judge(judge)
    return lost


def proven(standings: Iterable[Standing]) -> frozenset[str]:
    """Judges of whom a verdict has been read."""
    return frozenset(known.call.judge for known in standings if known.status == "ok")


def by_judge(standings: Iterable[Standing]) -> dict[str, Sequence[Standing]]:
    grouped: dict[str, list[Standing]] = {}
    for known in standings:
        grouped.setdefault(known.call.judge, []).append(known)
    return {**grouped}
