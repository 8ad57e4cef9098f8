"""All figures of one protocol, and the accuracy that needs no judge. Raw figures stand beside
controlled ones.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from apps.eval.figures.answers import Accuracy, CategoryAccuracy
from apps.eval.figures.models import RankStep, ScoreRow
from apps.eval.figures.report import Coverage, JudgedQuestions, PairFigures, ProtocolFigures
from apps.eval.judging.offline import LABEL, is_offline
from apps.eval.records.answer import Answer
from apps.eval.records.question import Question, is_correct
from apps.eval.scores.bias import bias
from apps.eval.scores.calibration import calibration
from apps.eval.scores.canaries import canary_check
from apps.eval.scores.comparison import compare_runs
from apps.eval.scores.firmness import rating_steps, score_steps
from apps.eval.scores.judge_check import by_judge
from apps.eval.scores.judgments import Contest, Judgment, contests, scale_of
from apps.eval.scores.pairs import pair_table, preference, rating_table
from apps.eval.scores.people import People
from apps.eval.scores.relative import relative_quality
from apps.eval.scores.statistics import Resampling, mean_interval, wilson_interval
from apps.eval.scores.style_control import controlled
from apps.eval.scores.votes import effective_votes, judge_agreement

Answers = Mapping[str, Mapping[str, Answer]]


def accuracy(questions: Sequence[Question], answers: Mapping[str, Answer]) -> Accuracy | None:
    """Share of the questions with a `match` whose every turn agrees with its reference."""
    verdicts: dict[str, list[bool]] = defaultdict(list)
    for question in questions:
        if question.match is not None:
            made = answers.get(question.question_id)
            verdicts[question.category].append(made is not None and _is_right(question, made))
    if not verdicts:
        return None
    correct, total = sum(map(sum, verdicts.values())), sum(map(len, verdicts.values()))
    low, high = wilson_interval(correct, total)
    return Accuracy(
        correct=correct,
        total=total,
        rate=correct / total,
        low=low,
        high=high,
        per_category={
            name: CategoryAccuracy(correct=sum(mine), total=len(mine))
            for name, mine in verdicts.items()
        },
    )


def _is_right(question: Question, answer: Answer) -> bool:
    return all(
        turn < len(answer.turn_texts) and bool(is_correct(question, answer.turn_texts[turn], turn))
        for turn in range(min(len(question.turns), len(question.reference)))
    )


def protocol_figures(
    judgments: Sequence[Judgment],
    questions: Sequence[Question],
    answers: Answers,
    resampling: Resampling,
    previous: Sequence[Judgment] = (),
    baseline: str | None = None,
    people: People | None = None,
    is_style_controlled: bool = False,
) -> ProtocolFigures:
    """`previous` are an earlier run's judgments."""
    judged = [item for item in judgments if item.kind == "contest"]
    category = {question.question_id: question.category for question in questions}
    judges = tuple(sorted({item.judge for item in judgments}))
    held = contests(judged)
    scores = compared = scale = None
    if any(item.scores for item in judged):
        scores, scale = mean_scores(judged, category, resampling), scale_of(judged)
    if any(len(item.models) == 2 for item in judged):
        compared = _compared(judgments, judged, held, category, answers, resampling)
    means = {name: row.mean for name, row in (scores or {}).items() if row.mean is not None}
    return ProtocolFigures(
        judges=judges,
        judge_labels=tuple(LABEL if is_offline(judge) else judge for judge in judges),
        judgments=coverage(judged),
        questions=JudgedQuestions(
            judged=len({item.question_id for item in judged}), total=len(questions)
        ),
        usd=sum(item.usd for item in judgments),
        scores=scores,
        compared=compared,
        scale=scale,
        relative_quality=relative_quality(
            means, compared.pairs if compared else (), baseline, scale or (1.0, 10.0)
        ),
        agreement=judge_agreement(judged),
        canaries=canary_check(judgments, previous),
        by_judge=by_judge(judgments, previous, answers),
        style_control=controlled(held, answers) if is_style_controlled else None,
        steps=_steps(judged, held, scores, compared, resampling),
        votes=effective_votes(held, judgments, people),
        comparison=compare_runs(judgments, previous, resampling),
        calibration=calibration(held, people, resampling) if people and held else None,
    )


def _steps(
    judged: Sequence[Judgment],
    held: Sequence[Contest],
    scores: Mapping[str, ScoreRow] | None,
    compared: PairFigures | None,
    resampling: Resampling,
) -> tuple[RankStep, ...]:
    if compared is not None:
        return rating_steps(held, compared.ratings.models, resampling)
    return score_steps(judged, scores or {}, resampling)


def _compared(
    judgments: Sequence[Judgment],
    judged: Sequence[Judgment],
    held: Sequence[Contest],
    category: Mapping[str, str],
    answers: Answers,
    resampling: Resampling,
) -> PairFigures:
    pairs = pair_table(held, judged, category, resampling)
    return PairFigures(
        pairs=pairs,
        ratings=rating_table(held, resampling),
        preference=preference(pairs),
        bias=bias(judgments, held, answers),
    )


def coverage(judgments: Sequence[Judgment]) -> Coverage:
    counts = Counter(item.status for item in judgments)
    return Coverage(
        ok=counts["ok"],
        unparsed=counts["unparsed"],
        refused=counts["refused"],
        truncated=counts["truncated"],
        missing=counts["missing"],
        total=len(judgments),
    )


def mean_scores(
    judgments: Sequence[Judgment], category: Mapping[str, str], resampling: Resampling
) -> dict[str, ScoreRow]:
    """Each model's mean score, overall, by category and by turn."""
    by_model: dict[str, list[tuple[Judgment, float | None]]] = defaultdict(list)
    for item in judgments:
        for place, model in enumerate(item.models):
            by_model[model].append((item, item.scores[place] if item.scores else None))
    return {
        model: _score_row(rows, category, resampling) for model, rows in sorted(by_model.items())
    }


def _score_row(
    rows: Sequence[tuple[Judgment, float | None]],
    category: Mapping[str, str],
    resampling: Resampling,
) -> ScoreRow:
    known = [(item, score) for item, score in rows if score is not None]
    by_question: dict[str, list[float]] = defaultdict(list)
    by_category: dict[str, list[float]] = defaultdict(list)
    by_turn: dict[int, list[float]] = defaultdict(list)
    for item, score in known:
        by_question[item.question_id].append(score)
        by_category[category[item.question_id]].append(score)
        by_turn[item.turn].append(score)
    low, high = (
        mean_interval(by_question, scale_of(item for item, _ in known), resampling)
        if known
        else (None, None)
    )
    return ScoreRow(
        n=len(known),
        total=len(rows),
        mean=float(np.mean([score for _, score in known])) if known else None,
        sum=float(sum(score for _, score in known)),
        low=low,
        high=high,
        per_category={name: float(np.mean(mine)) for name, mine in by_category.items()},
        per_turn={str(turn + 1): float(np.mean(mine)) for turn, mine in by_turn.items()},
    )
