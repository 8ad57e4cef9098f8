"""Several judges: how far they agree, and what they are worth together.

J judges whose errors have variance s2 and correlate by r count as J / (1 + (J - 1) r) independent
ones (Kish 1965, design effect). Three judges with r = .5 are one and a half. With verdicts of
people an error is a judge's outcome less what it gives on average where people say the same.
Without, it is what differs from its own mean on the pair: judges then also agree where they are
right, so that the number is a lower bound.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from apps.eval.figures.judges import JudgeAgreement, JudgePair, JudgeVote, Votes
from apps.eval.scores.judgments import Contest, Judgment
from apps.eval.scores.people import People
from apps.eval.scores.statistics import Floats, cohen_kappa, krippendorff_alpha

LEAST_CONTESTS = 10
# Share of a common variance mixed into the covariance, so that few contests give no wild weights.
SHRINKAGE = 0.1

Contested = tuple[str, tuple[str, str], int]
"""question, models, repeat"""


Slot = tuple[str, tuple[str, ...], int, int, int]
"""What two judges can both judge: question, models, order, repeat, turn."""


def judge_agreement(judgments: Sequence[Judgment]) -> JudgeAgreement | None:
    """Kappa of every two judges and Krippendorff's alpha of all; None with one judge."""
    by_judge: dict[str, dict[Slot, float]] = defaultdict(dict)
    is_rating = all(item.lead is None for item in judgments)
    for item in judgments:
        value = item.scores[0] if is_rating and item.scores else item.lead
        if value is not None:
            where = (item.question_id, item.models, item.order, item.repeat, item.turn)
            by_judge[item.judge][where] = value if is_rating else float(np.sign(value))
    if len(by_judge) < 2:
        return None
    couples = [_couple(by_judge, *names) for names in combinations(sorted(by_judge), 2)]
    alpha = krippendorff_alpha(by_judge, is_rating)
    return JudgeAgreement(
        pairs=tuple(couple for couple in couples if couple),
        krippendorff_alpha=None if np.isnan(alpha) else alpha,
    )


def _couple(
    by_judge: Mapping[str, Mapping[Slot, float]], first: str, second: str
) -> JudgePair | None:
    """Two judges on what both have judged; None if that is nothing."""
    shared = sorted(by_judge[first].keys() & by_judge[second].keys())
    if not shared:
        return None
    ours = [by_judge[first][where] for where in shared]
    theirs = [by_judge[second][where] for where in shared]
    return JudgePair(
        judges=(first, second),
        kappa=cohen_kappa(ours, theirs),
        agreement=sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(shared),
        n=len(shared),
    )


def effective_votes(
    held: Sequence[Contest], judgments: Sequence[Judgment], people: People | None
) -> Votes | None:
    """None with one judge, or where they share fewer than `LEAST_CONTESTS` contests."""
    outcomes = _outcomes(held)
    judges = sorted(outcomes)
    if len(judges) < 2:
        return None
    shared = sorted(set[Contested].intersection(*(set(mine) for mine in outcomes.values())))
    known = [place for place in shared if people and people.outcome(place[0], place[1]) is not None]
    is_measured = people is not None and len(known) >= LEAST_CONTESTS
    places = known if is_measured else shared
    if len(places) < LEAST_CONTESTS:
        return None
    errors_JN = np.array([[outcomes[judge][place] for place in places] for judge in judges])
    causes: list[object] = [place[1] for place in places]
    if is_measured and people is not None:
        causes = [people.outcome(place[0], place[1]) for place in places]
    errors_JN -= _means(errors_JN, causes)
    return _votes(judges, errors_JN, judgments, len(shared), is_measured)


def _outcomes(held: Sequence[Contest]) -> dict[str, dict[Contested, float]]:
    outcomes: dict[str, dict[Contested, float]] = defaultdict(dict)
    for contest in held:
        if contest.outcome is not None:
            place = (contest.question_id, contest.models, contest.repeat)
            outcomes[contest.judge][place] = contest.outcome
    return outcomes


def _means(outcomes_JN: Floats, causes: Sequence[object]) -> Floats:
    """Of each judge, its mean over the contests of the same cause."""
    number = {cause: place for place, cause in enumerate(dict.fromkeys(causes))}
    cause_N = np.array([number[cause] for cause in causes])
    means_JC = np.stack([outcomes_JN[:, cause_N == c].mean(1) for c in range(len(number))], axis=1)
    return means_JC[:, cause_N]


def _votes(
    judges: Sequence[str],
    errors_JN: Floats,
    judgments: Sequence[Judgment],
    num_contests: int,
    is_measured: bool,
) -> Votes:
    covariance_JJ = errors_JN @ errors_JN.T / errors_JN.shape[1]
    variance = max(float(np.diag(covariance_JJ).mean()), 1e-9)
    ridge_JJ = (1 - SHRINKAGE) * covariance_JJ + SHRINKAGE * variance * np.eye(len(judges))
    inverse_JJ: Floats = np.asarray(np.linalg.inv(ridge_JJ), np.float64)
    weight_J = np.maximum(inverse_JJ.sum(1), 0.0)
    weight_J /= weight_J.sum()
    effective = variance * len(judges) ** 2 / max(float(covariance_JJ.sum()), 1e-9)
    weighted = variance / max(float(weight_J @ covariance_JJ @ weight_J), 1e-9)
    usd = dict.fromkeys(judges, 0.0)
    for item in judgments:
        if item.judge in usd and item.kind == "contest":
            usd[item.judge] += item.usd
    effective = min(effective, float(len(judges)))
    total = sum(usd.values())
    return Votes(
        judges=tuple(
            JudgeVote(
                judge=judge, weight=float(weight), usd_per_1000=1000 * usd[judge] / num_contests
            )
            for judge, weight in zip(judges, weight_J, strict=True)
        ),
        contests=num_contests,
        effective=effective,
        effective_weighted=min(weighted, float(len(judges))),
        usd_per_1000_effective=1000 * total / num_contests / effective,
        is_measured_by_people=is_measured,
    )
