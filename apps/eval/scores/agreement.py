"""Agreement of judges with each other."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from apps.eval.scores.figures import JudgeAgreement, JudgePair
from apps.eval.scores.judgments import Judgment
from apps.eval.scores.statistics import cohen_kappa, krippendorff_alpha

Place = tuple[str, tuple[str, ...], int, int, int]
"""What two judges can both judge: question, models, order, repeat, turn."""


def judge_agreement(judgments: Sequence[Judgment]) -> JudgeAgreement | None:
    """Kappa of every two judges and Krippendorff's alpha of all; None with one judge."""
    by_judge: dict[str, dict[Place, float]] = defaultdict(dict)
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
    by_judge: Mapping[str, Mapping[Place, float]], first: str, second: str
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
