"""The figures of an evaluation, as plain data: what report.json holds and the page draws.

Every figure carries its n of N. Raw figures stand beside controlled ones.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apps.eval.records.answer import Answer
from apps.eval.records.question import Question, is_correct
from apps.eval.scores.agreement import judge_agreement
from apps.eval.scores.bias import bias
from apps.eval.scores.judgments import Judgment, contests
from apps.eval.scores.pairs import pair_table, preference, rating_table
from apps.eval.scores.relative import relative_quality
from apps.eval.scores.statistics import mean_interval, wilson_interval

Answers = Mapping[str, Mapping[str, Answer]]


def accuracy(questions: Sequence[Question], answers: Mapping[str, Answer]) -> dict[str, Any] | None:
    """Share of the questions with a `match` whose every turn agrees with its reference."""
    verdicts: dict[str, bool] = {}
    for question in questions:
        if question.match is None:
            continue
        made = answers.get(question.question_id)
        turns = range(min(len(question.turns), len(question.reference)))
        verdicts[question.question_id] = made is not None and all(
            turn < len(made.turn_texts) and bool(is_correct(question, made.turn_texts[turn], turn))
            for turn in turns
        )
    if not verdicts:
        return None
    by_category: dict[str, list[bool]] = defaultdict(list)
    for question in questions:
        if question.question_id in verdicts:
            by_category[question.category].append(verdicts[question.question_id])
    correct, total = sum(verdicts.values()), len(verdicts)
    low, high = wilson_interval(correct, total)
    return {
        "correct": correct,
        "total": total,
        "rate": correct / total,
        "low": low,
        "high": high,
        "per_category": {
            name: {"correct": sum(found), "total": len(found)}
            for name, found in by_category.items()
        },
    }


def protocol_scores(
    judgments: Sequence[Judgment],
    questions: Sequence[Question],
    answers: Answers,
    baseline: str | None,
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """All figures of one protocol's judgments."""
    contest_judgments = [item for item in judgments if item.kind == "contest"]
    category = {question.question_id: question.category for question in questions}
    result: dict[str, Any] = {
        "judges": sorted({item.judge for item in judgments}),
        "judgments": coverage(contest_judgments),
        "questions": {
            "judged": len({item.question_id for item in contest_judgments}),
            "total": len(questions),
        },
        "usd": sum(item.usd for item in judgments),
    }
    if any(item.scores for item in contest_judgments):
        result["scores"] = mean_scores(contest_judgments, category, num_resamples, seed)
    if any(len(item.models) == 2 for item in contest_judgments):
        held = contests(contest_judgments)
        result["pairs"] = pair_table(held, contest_judgments, category, num_resamples, seed)
        result["ratings"] = rating_table(held, num_resamples, seed)
        result["preference"] = preference(result["pairs"])
        result["bias"] = bias(judgments, held, answers)
    means = {
        model: row["mean"]
        for model, row in result.get("scores", {}).items()
        if row["mean"] is not None
    }
    if relative := relative_quality(means, result.get("pairs", ()), baseline):
        result["relative_quality"] = relative
    result["agreement"] = judge_agreement(contest_judgments)
    return result


def coverage(judgments: Sequence[Judgment]) -> dict[str, int]:
    """{ok, unparsed, refused, truncated, missing, total}"""
    counts = {"ok": 0, "unparsed": 0, "refused": 0, "truncated": 0, "missing": 0}
    for item in judgments:
        counts[item.status] += 1
    return {**counts, "total": len(judgments)}


def mean_scores(
    judgments: Sequence[Judgment], category: Mapping[str, str], num_resamples: int, seed: int
) -> dict[str, Any]:
    """Each model's mean score, overall, by category and by turn."""
    by_model: dict[str, list[tuple[Judgment, float | None]]] = defaultdict(list)
    for item in judgments:
        for place, model in enumerate(item.models):
            by_model[model].append((item, item.scores[place] if item.scores else None))
    return {
        model: _score_row(rows, category, num_resamples, seed)
        for model, rows in sorted(by_model.items())
    }


def _score_row(
    rows: Sequence[tuple[Judgment, float | None]],
    category: Mapping[str, str],
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    known = [(item, score) for item, score in rows if score is not None]
    by_question: dict[str, list[float]] = defaultdict(list)
    by_category: dict[str, list[float]] = defaultdict(list)
    by_turn: dict[int, list[float]] = defaultdict(list)
    for item, score in known:
        by_question[item.question_id].append(score)
        by_category[category[item.question_id]].append(score)
        by_turn[item.turn].append(score)
    low, high = mean_interval(by_question, num_resamples, seed) if known else (None, None)
    return {
        "n": len(known),
        "total": len(rows),
        "mean": float(np.mean([score for _, score in known])) if known else None,
        "sum": float(sum(score for _, score in known)),
        "low": low,
        "high": high,
        "per_category": {name: float(np.mean(found)) for name, found in by_category.items()},
        "per_turn": {str(turn + 1): float(np.mean(found)) for turn, found in by_turn.items()},
    }
