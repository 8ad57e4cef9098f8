"""The figures of an evaluation, as plain data: what report.json holds and the page draws.

Every figure carries its n of N. Raw figures stand beside controlled ones. Win, tie and loss of a
question are taken over judges and repeats together: the mean outcome above, at or below one half.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from apps.common import ratings
from apps.eval.answers import Answer
from apps.eval.judgments import Contest, Judgment, contests
from apps.eval.questions import Question, is_correct
from apps.eval.statistics import (
    cohen_kappa,
    krippendorff_alpha,
    mean_interval,
    ratio_interval,
    wilson_interval,
)

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
        "latency_s": _latency(judgments),
    }
    if any(item.scores for item in contest_judgments):
        result["scores"] = mean_scores(contest_judgments, category, num_resamples, seed)
    if any(len(item.models) == 2 for item in contest_judgments):
        held = contests(contest_judgments)
        result["pairs"] = pair_table(held, contest_judgments, category, num_resamples, seed)
        result["ratings"] = rating_table(held, num_resamples, seed)
        result["preference"] = preference(result["pairs"])
        result["bias"] = bias(judgments, held, answers)
    relative = relative_quality(result, baseline)
    if relative:
        result["relative_quality"] = relative
    result["agreement"] = judge_agreement(contest_judgments)
    return result


def coverage(judgments: Sequence[Judgment]) -> dict[str, int]:
    """{ok, unparsed, refused, truncated, missing, total}"""
    counts = {"ok": 0, "unparsed": 0, "refused": 0, "truncated": 0, "missing": 0}
    for item in judgments:
        counts[item.status] += 1
    return {**counts, "total": len(judgments)}


def _latency(judgments: Sequence[Judgment]) -> dict[str, float] | None:
    values = [item.latency_s for item in judgments if item.latency_s is not None]
    if not values:
        return None
    p50, p95 = np.quantile(values, [0.5, 0.95])
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}


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


def pair_table(
    held: Sequence[Contest],
    judgments: Sequence[Judgment],
    category: Mapping[str, str],
    num_resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Win, tie and loss of every pair, with the totals of scores where there are any."""
    return [
        _pair_row(
            models,
            [contest for contest in held if contest.models == models],
            [item for item in judgments if item.models == models],
            category,
            num_resamples,
            seed,
        )
        for models in dict.fromkeys(contest.models for contest in held)
    ]


def _pair_row(
    models: tuple[str, str],
    held: Sequence[Contest],
    judgments: Sequence[Judgment],
    category: Mapping[str, str],
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    by_question: dict[str, list[float]] = defaultdict(list)
    for contest in held:
        if contest.outcome is not None:
            by_question[contest.question_id].append(contest.outcome)
    means = {question_id: float(np.mean(found)) for question_id, found in by_question.items()}
    decided = [contest for contest in held if contest.is_consistent is not None]
    row: dict[str, Any] = {
        "models": list(models),
        "n": len(means),
        "total": len({contest.question_id for contest in held}),
        **_win_tie_loss(means.values()),
        "per_category": {
            name: _win_tie_loss(v for q, v in means.items() if category[q] == name)
            for name in dict.fromkeys(category[q] for q in means)
        },
        "consistency": {
            "consistent": sum(bool(contest.is_consistent) for contest in decided),
            "total": len(decided),
        }
        if decided
        else None,
    }
    if means:
        row["win_rate"] = float(np.mean([*means.values()]))
        row["low"], row["high"] = mean_interval(
            {q: [v] for q, v in means.items()}, num_resamples, seed
        )
    totals = _totals(judgments, num_resamples, seed)
    return {**row, "score_totals": totals} if totals else row


def _win_tie_loss(outcomes: Any) -> dict[str, int]:
    values = list(outcomes)
    return {
        "win": sum(value > 0.5 for value in values),
        "tie": sum(value == 0.5 for value in values),
        "loss": sum(value < 0.5 for value in values),
    }


def _totals(judgments: Sequence[Judgment], num_resamples: int, seed: int) -> dict[str, Any] | None:
    """Sums of both models' scores over questions, repeats and judges averaged first."""
    by_question: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for item in judgments:
        if item.scores:
            by_question[item.question_id].append(item.scores)
    if not by_question:
        return None
    means = np.array([np.mean(found, axis=0) for found in by_question.values()])
    first, second = (float(total) for total in means.sum(0))
    low, high = ratio_interval(means[:, 0], means[:, 1], num_resamples, seed)
    return {
        "first": first,
        "second": second,
        "ratio": first / second if second else None,
        "low": low,
        "high": high,
    }


def rating_table(held: Sequence[Contest], num_resamples: int, seed: int) -> dict[str, Any]:
    """Bradley-Terry with intervals, online Elo beside it, and the matrix of win rates."""
    records = [
        (*contest.models, contest.outcome, contest.question_id)
        for contest in held
        if contest.outcome is not None
    ]
    battles = ratings.Battles.of(records)
    elo = dict(zip(battles.models, ratings.elo(battles), strict=True))
    wins_MM = ratings.win_matrix(battles)
    games_MM = wins_MM + wins_MM.T
    return {
        "models": [
            {**asdict(row), "elo": float(elo[row.model])}
            for row in ratings.leaderboard(battles, min(num_resamples, 500), seed)
        ],
        "is_connected": ratings.is_connected(wins_MM) if battles.models else False,
        "win_rates": {
            first: {
                second: float(wins_MM[i, j] / games_MM[i, j])
                for j, second in enumerate(battles.models)
                if games_MM[i, j]
            }
            for i, first in enumerate(battles.models)
        },
    }


def preference(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Whom the judge prefers, when there are two models; None otherwise or on equal wins."""
    if len(pairs) != 1 or pairs[0]["win"] == pairs[0]["loss"]:
        return None
    pair = pairs[0]
    first_leads = pair["win"] > pair["loss"]
    return {
        "preferred": pair["models"][0 if first_leads else 1],
        "over": pair["models"][1 if first_leads else 0],
        "win": max(pair["win"], pair["loss"]),
        "tie": pair["tie"],
        "loss": min(pair["win"], pair["loss"]),
        "n": pair["n"],
        "total": pair["total"],
    }


def relative_quality(result: Mapping[str, Any], baseline: str | None) -> dict[str, Any] | None:
    """Each model's score as a share of the baseline's: by means, or chained through pairs."""
    if "scores" not in result:
        return None
    means = {
        model: row["mean"] for model, row in result["scores"].items() if row["mean"] is not None
    }
    if not means:
        return None
    anchor = baseline if baseline in means else max(means, key=lambda model: means[model])
    return {
        "baseline": anchor,
        "percent": {model: 100.0 * mean / means[anchor] for model, mean in means.items()},
    }


def bias(
    judgments: Sequence[Judgment], held: Sequence[Contest], answers: Answers
) -> dict[str, Any]:
    """What else the verdicts go with: place, length, the judge's own family, identical answers."""
    single = [item for item in judgments if item.kind == "contest" and item.lead is not None]
    decisive = [item for item in single if item.lead]
    first_shown = sum((item.lead > 0) == (item.order == 0) for item in decisive if item.lead)
    longer, with_length = 0, 0
    for contest in held:
        if contest.outcome in (None, 0.5):
            continue
        lengths = [_length(answers, model, contest.question_id) for model in contest.models]
        if lengths[0] != lengths[1]:
            with_length += 1
            longer += (contest.outcome == 1.0) == (lengths[0] > lengths[1])
    decided = [contest for contest in held if contest.is_consistent is not None]
    return {
        "first_shown_wins": _share(first_shown, len(decisive)),
        "longer_wins": _share(longer, with_length),
        "order_consistent": _share(
            sum(bool(contest.is_consistent) for contest in decided), len(decided)
        ),
        "own_family_wins": own_family(held),
        "self_check": self_check(judgments),
    }


def _length(answers: Answers, model: str, question_id: str) -> int:
    return sum(len(text) for text in answers[model][question_id].turn_texts)


def _share(part: float, total: int) -> dict[str, Any] | None:
    if not total:
        return None
    low, high = wilson_interval(part, total)
    return {"share": part / total, "n": total, "low": low, "high": high}


def own_family(held: Sequence[Contest]) -> dict[str, Any] | None:
    """How often a judge prefers a contestant that carries its own family's name."""
    won, total = 0.0, 0
    for contest in held:
        family = contest.judge.split("-")[0].lower()
        mine = [model.lower().startswith(family) for model in contest.models]
        if contest.outcome is None or sum(mine) != 1 or contest.judge == "offline":
            continue
        total += 1
        won += contest.outcome if mine[0] else 1.0 - contest.outcome
    return _share(won, total)


def self_check(judgments: Sequence[Judgment]) -> dict[str, Any] | None:
    """A/A: identical answers. Ties are right; first and second should be equally frequent."""
    items = [item for item in judgments if item.kind == "self"]
    leads = [item.lead for item in items if item.lead is not None]
    if not items:
        return None
    return {
        "first": sum(lead > 0 for lead in leads),
        "tie": sum(lead == 0 for lead in leads),
        "second": sum(lead < 0 for lead in leads),
        "n": len(leads),
        "total": len(items),
    }


def judge_agreement(judgments: Sequence[Judgment]) -> dict[str, Any] | None:
    """Kappa of every two judges and Krippendorff's alpha of all; None with one judge."""
    by_judge: dict[str, dict[Any, float]] = defaultdict(dict)
    is_rating = all(item.lead is None for item in judgments)
    for item in judgments:
        value = item.scores[0] if is_rating and item.scores else item.lead
        if value is not None:
            where = (item.question_id, item.models, item.order, item.repeat, item.turn)
            by_judge[item.judge][where] = value if is_rating else float(np.sign(value))
    if len(by_judge) < 2:
        return None
    names = sorted(by_judge)
    pairs = []
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            shared = sorted(by_judge[first].keys() & by_judge[second].keys())
            if shared:
                ours = [by_judge[first][where] for where in shared]
                theirs = [by_judge[second][where] for where in shared]
                same = sum(a == b for a, b in zip(ours, theirs, strict=True))
                pairs.append(
                    {
                        "judges": [first, second],
                        "kappa": cohen_kappa(ours, theirs),
                        "agreement": same / len(shared),
                        "n": len(shared),
                    }
                )
    return {"pairs": pairs, "krippendorff_alpha": krippendorff_alpha(by_judge, is_rating)}
