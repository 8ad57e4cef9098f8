"""Stored responses turned into outcomes: one record per judgment, one per contest.

A judgment is one response about one question (and turn). A contest is one question between two
models under one judge and repeat: both orders together, where a protocol has two.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from apps.common.errors import CriaError, InputError, NotFoundError
from apps.eval.calls import journal
from apps.eval.calls.lines import ParsedLine, PlannedLine, ResponseLine
from apps.eval.folder import read_plan
from apps.eval.judging.call import digest
from apps.eval.protocols.parsing import form_of, parse_record
from apps.eval.records.answer import Answer
from apps.eval.records.question import Question
from apps.eval.scores.statistics import Interval

# Arena-Hard's labels as the strength of the first displayed answer.
_LABELS = {"A>>B": 2.0, "A>B": 1.0, "A=B": 0.0, "B>A": -1.0, "B>>A": -2.0}
_LETTERS = {"A": 1.0, "C": 0.0, "B": -1.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgment:
    """A planned judgment and what came of it; scores and lead are in listed order."""

    protocol: str
    question_id: str
    models: tuple[str, ...]
    order: int
    repeat: int
    turn: int
    judge: str
    kind: str
    status: str
    """ok, unparsed, refused, truncated or missing"""
    scores: tuple[float, ...] | None
    scale: Interval | None
    """lowest and highest score there can be; None where there is none"""
    lead: float | None
    """> 0: the first listed model is better; None for protocols with one answer"""
    text: str
    usd: float
    answers_digest: str | None = None
    """of what the judge was shown, in listed order"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contest:
    """One question (or turn of it) between two listed models, under one judge and repeat."""

    question_id: str
    models: tuple[str, str]
    judge: str
    repeat: int
    kind: str
    outcome: float | None
    """1 the first wins, 0.5 tie, 0 the second wins; None if a judgment is missing or unreadable"""
    is_consistent: bool | None
    """both orders agree; None with one order"""


def load_judgments(directory: str) -> list[Judgment]:
    """Every planned judgment of a folder; the last readable response of a slot counts."""
    planned = read_plan(directory)
    if not planned:
        raise NotFoundError(
            f"{directory} has not been judged; run `python -m apps.eval judge {directory}`"
        )
    best: dict[str, tuple[ResponseLine, ParsedLine]] = {}
    usd: dict[str, float] = defaultdict(float)
    for record in journal.read_raw(directory):
        parsed = parse_record(record)
        usd[record["slot"]] += record["usd"]
        known = best.get(record["slot"])
        if parsed["status"] == "ok" or known is None or known[1]["status"] != "ok":
            best[record["slot"]] = (record, parsed)
    return [_judgment(item, best.get(item["slot"]), usd[item["slot"]]) for item in planned]


def _judgment(
    item: PlannedLine, made: tuple[ResponseLine, ParsedLine] | None, usd: float
) -> Judgment:
    scores = tuple(made[1].get("scores") or ()) or None if made else None
    if scores and item["order"]:
        scores = scores[::-1]
    return Judgment(
        protocol=item["protocol"],
        question_id=item["question_id"],
        models=tuple(item["models"]),
        order=item["order"],
        repeat=item["repeat"],
        turn=item["turn"],
        judge=item["judge"],
        kind=item["kind"],
        status=made[1]["status"] if made else "missing",
        scores=scores,
        scale=form_of(made[0]).scale if made else None,
        lead=_lead(item, scores, made[1].get("verdict") if made else None),
        text=made[0]["response_text"] if made else "",
        usd=usd,
        answers_digest=item.get("answers_digest"),
    )


def _lead(item: PlannedLine, scores: tuple[float, ...] | None, verdict: str | None) -> float | None:
    if len(item["models"]) < 2:
        return None
    if scores is not None:
        return scores[0] - scores[1]
    if verdict is None:
        return None
    shown = _LETTERS[verdict] if verdict in _LETTERS else _LABELS[verdict]
    return -shown if item["order"] else shown


def scale_of(judgments: Iterable[Judgment]) -> Interval:
    """What the scores of a protocol lie on; of a file that was changed between runs, the widest."""
    scales = [item.scale for item in judgments if item.scores and item.scale]
    return (min(low for low, _ in scales), max(high for _, high in scales))


def points_of_scale(judgments: Iterable[Judgment], of_ten: float) -> float:
    """Points of a scale from 1 to 10 as the same share of the scale that these scores lie on.

    2 of 1 to 10    2.2 of 0 to 10    0.22 of 0 to 1    22 of 0 to 100
    """
    low, high = scale_of(judgments)
    return of_ten * (high - low) / 9.0


def contests(judgments: Iterable[Judgment]) -> list[Contest]:
    """Joins the orders of each question; the pairwise judgments of one protocol."""
    groups: dict[tuple[object, ...], list[Judgment]] = defaultdict(list)
    for item in judgments:
        if len(item.models) == 2:
            key = (item.judge, item.kind, item.models, item.question_id, item.repeat, item.turn)
            groups[key].append(item)
    return [_contest(group) for group in groups.values()]


def _contest(group: Sequence[Judgment]) -> Contest:
    first = group[0]
    leads = [item.lead for item in group]
    known = [lead for lead in leads if lead is not None]
    outcome = is_consistent = None
    if len(known) == len(leads):
        outcome = _outcome(known, first.protocol)
        if len(known) == 2:
            is_consistent = _sign(known[0]) == _sign(known[1])
    return Contest(
        question_id=first.question_id,
        models=(first.models[0], first.models[1]),
        judge=first.judge,
        repeat=first.repeat,
        kind=first.kind,
        outcome=outcome,
        is_consistent=is_consistent,
    )


def _outcome(leads: Sequence[float], protocol: str) -> float:
    if protocol == "pairwise-swap" and len({_sign(lead) for lead in leads}) > 1:
        return 0.5
    return 0.5 + 0.5 * _sign(sum(leads))


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def require_complete(judgments: Sequence[Judgment], allow_missing: bool) -> None:
    """Refuses totals over a part of the judgments, unless they are asked for."""
    lost = [item for item in judgments if item.status != "ok"]
    if lost and not allow_missing:
        counts = Counter(item.status for item in lost)
        told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        raise CriaError(
            f"{len(lost)} of {len(judgments)} judgments have no score ({told}); run `judge` again "
            "to complete them, or report with --allow-missing, which shows n of N everywhere"
        )


def require_current(
    judgments: Iterable[Judgment],
    questions: Iterable[Question],
    answers: Mapping[str, Mapping[str, Answer]],
) -> None:
    """Refuses judgments of answers or questions that have been replaced or removed since."""
    asked = {question.question_id for question in questions}
    for item in judgments:
        if item.kind == "canary":
            continue  # its answers are not of this folder
        _require_present(item, asked, answers)
        if item.answers_digest is None:
            continue
        made = [answers[model].get(item.question_id) for model in item.models]
        texts = [list(answer.turn_texts) if answer else [] for answer in made]
        if digest(list(item.models), texts) != item.answers_digest:
            raise CriaError(
                f"{' or '.join(dict.fromkeys(item.models))} has another answer to question "
                f"{item.question_id} now than {item.judge} judged by {item.protocol}; run `judge` "
                "again: what has not changed is not paid again"
            )


def _require_present(item: Judgment, asked: Collection[str], answers: Collection[str]) -> None:
    gone = [f"answers/{model}.jsonl" for model in item.models if model not in answers]
    if item.question_id not in asked:
        gone.append(f"question {item.question_id} of questions.jsonl")
    if gone:
        raise InputError(
            f"{' and '.join(dict.fromkeys(gone))} is gone, which {item.judge} judged by "
            f"{item.protocol}; put it back, or run `judge` again for what is left: no judgment is "
            "paid twice"
        )
