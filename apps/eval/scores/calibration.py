"""A judge held against people: how often they agree, and win rates that stay true though it errs.

Prediction-powered inference (Angelopoulos et al., Science 382, 2023): the judge's outcomes on all
questions, corrected by how far it was off on those that people judged too. The weight of the judge
is that of PPI++ (arXiv:2311.01453). The package ppi-python 0.2.3 takes normal intervals: simulated
with 5 to 20 labels they hold the truth in 37 to 94 of 100 cases. Here questions are weighted at
random instead, with half a question more at either end, as in `statistics.mean_interval`.

People's questions must be a fair sample of all: drawn at random, not the hard ones.

Worked example, 4 questions, people on the first two: the judge says 1 1 1 0 and people 1 0. With
weight 1 the judge's mean on the other two is .5, and it was off by (0 - 1) / 2 = -.5 on the first
two. So the corrected win rate is 0, and with weight 0 it is people's own .5.

How much narrower than people alone it can be is bounded. With n labels, N other questions and a
correlation r of judge and people, the best weight leaves (1 - r^2 N / (n + N)) of the variance of n
labels. So the width is sqrt(1 - r^2 N / (n + N)) of theirs, whatever the method. Half takes r >=
.87 with endless other questions, and .91 with ten for each label. A judge that agrees with people
in 85 of 100 even decisions has .7, and can save a quarter.

    r      N = n    N = 10 n    N endless
    .50    .94      .88         .87
    .70    .87      .74         .71
    .85    .80      .59         .53
    .95    .74      .42         .31
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from apps.eval.figures.judges import Calibration, CorrectedPair, HumanAgreement
from apps.eval.figures.models import WinRate
from apps.eval.scores.judgments import Contest
from apps.eval.scores.pairs import question_means
from apps.eval.scores.people import People
from apps.eval.scores.statistics import Floats, Interval, Resampling, cohen_kappa


def calibration(
    held: Sequence[Contest], people: People, resampling: Resampling
) -> Calibration | None:
    """None where no verdict of people is on a contest of these."""
    agreement = human_agreement(held, people)
    if agreement is None:
        return None
    by_pair: dict[tuple[str, str], list[Contest]] = defaultdict(list)
    for contest in held:
        by_pair[contest.models].append(contest)
    rows = [
        _corrected(models, question_means(mine), people, resampling)
        for models, mine in by_pair.items()
    ]
    return Calibration(agreement=agreement, pairs=tuple(row for row in rows if row))


def human_agreement(held: Sequence[Contest], people: People) -> HumanAgreement | None:
    """How often the judge's verdicts equal people's, with ties and among decisions only."""
    ours: list[int] = []
    theirs: list[int] = []
    for contest in held:
        given = people.outcome(contest.question_id, contest.models)
        if contest.outcome is not None and given is not None:
            ours.append(_sign(contest.outcome))
            theirs.append(_sign(given))
    if not ours:
        return None
    decided = [(a, b) for a, b in zip(ours, theirs, strict=True) if a and b]
    return HumanAgreement(
        n=len(ours),
        agreement=sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(ours),
        kappa=cohen_kappa(ours, theirs),
        decided_n=len(decided),
        decided_agreement=sum(a == b for a, b in decided) / len(decided) if decided else None,
    )


def _sign(outcome: float) -> int:
    return (outcome > 0.5) - (outcome < 0.5)


def _corrected(
    models: tuple[str, str],
    judged: Mapping[str, float],
    people: People,
    resampling: Resampling,
) -> CorrectedPair | None:
    given = {q: people.outcome(q, models) for q in judged}
    known = {q: outcome for q, outcome in given.items() if outcome is not None}
    if not known:
        return None
    human_Q = np.array([*known.values()])
    judge_Q = np.array([judged[q] for q in known])
    rest_R = np.array([outcome for q, outcome in judged.items() if q not in known])
    rate, interval, weight = corrected_mean(human_Q, judge_Q, rest_R, resampling)
    alone, alone_interval, _ = corrected_mean(human_Q, judge_Q, rest_R[:0], resampling)
    correlation = _correlation(human_Q, judge_Q)
    return CorrectedPair(
        models=models,
        human_n=len(known),
        judged_n=len(judged),
        judge_weight=weight,
        correlation=correlation,
        width_share=(interval[1] - interval[0]) / (alone_interval[1] - alone_interval[0]),
        least_width_share=least_width_share(correlation or 0.0, len(known), len(rest_R)),
        judge_win_rate=float(np.mean([*judged.values()])),
        corrected=WinRate(win_rate=rate, low=interval[0], high=interval[1]),
        people_alone=WinRate(win_rate=alone, low=alone_interval[0], high=alone_interval[1]),
    )


def least_width_share(correlation: float, labels: int, others: int) -> float:
    """Of the width of `labels` alone: no judge of this correlation with people can leave less."""
    share = others / (labels + others)
    return float(np.sqrt(1.0 - correlation**2 * share))


def _correlation(human_Q: Floats, judge_Q: Floats) -> float | None:
    """None where one of them never varies."""
    if len(human_Q) < 2 or any(outcomes.min() == outcomes.max() for outcomes in (human_Q, judge_Q)):
        return None
    return float(np.corrcoef(human_Q, judge_Q)[0, 1])


def corrected_mean(
    human_Q: Floats, judge_Q: Floats, rest_R: Floats, resampling: Resampling
) -> tuple[float, Interval, float]:
    """(mean of people's outcomes over all questions, its interval, the judge's weight 0-1).

    `human_Q` and `judge_Q` are outcomes 0..1 on the questions that both judged, `rest_R` those of
    the judge on all others. Without others it is people's mean.
    """
    rng = np.random.default_rng(resampling.seed)
    size = resampling.num_resamples
    all_judged = np.concatenate([judge_Q, rest_R])
    once = np.ones((1, len(human_Q)))
    weight = float(_judge_weight(once, human_Q, judge_Q, rest_R)[0])
    rest_mean = float(rest_R.mean()) if len(rest_R) else 0.0
    estimate = weight * rest_mean + float(np.mean(human_Q - weight * judge_Q))
    draws_BQ = rng.standard_exponential((size, len(human_Q)))
    ends_B2 = rng.standard_gamma(0.5, (size, 2))
    weight_B = _judge_weight(draws_BQ, human_Q, judge_Q, rest_R)
    # Of the two half questions people gave 0 and 1, and the judge what it gives on average.
    off_B = draws_BQ @ human_Q - weight_B * (draws_BQ @ judge_Q) + ends_B2[:, 1]
    off_B -= weight_B * all_judged.mean() * ends_B2.sum(1)
    means_B = off_B / (draws_BQ.sum(1) + ends_B2.sum(1))
    if len(rest_R):
        draws_BR = rng.standard_exponential((size, len(rest_R)))
        means_B += weight_B * (draws_BR @ rest_R) / draws_BR.sum(1)
    tail = (1.0 - resampling.confidence) / 2
    low, high = np.quantile(means_B, [tail, 1.0 - tail], method="weibull")
    estimate = min(1.0, max(0.0, estimate))
    # Closed at an end of the scale that all of people's outcomes share, as `mean_interval` is.
    low, high = min(float(low), estimate), max(float(high), estimate)
    return estimate, (max(0.0, low), min(1.0, high)), weight


def _judge_weight(draws_BQ: Floats, human_Q: Floats, judge_Q: Floats, rest_R: Floats) -> Floats:
    """How far the judge's outcomes tell people's, in each weighting; 0 where nothing is left."""
    total_B = draws_BQ.sum(1)
    if not len(rest_R):
        return np.zeros_like(total_B)
    covariance_B = (draws_BQ @ (human_Q * judge_Q)) / total_B
    covariance_B -= (draws_BQ @ human_Q) * (draws_BQ @ judge_Q) / total_B**2
    variance = max(float(np.concatenate([judge_Q, rest_R]).var()), 1e-9)
    return np.clip(covariance_B / ((1 + len(human_Q) / len(rest_R)) * variance), 0.0, 1.0)
