"""Agreement of judges with each other and with people."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import orjson

from apps.common.errors import InputError
from apps.common.files import storage
from apps.eval.scores.figures import HumanAgreement, JudgeAgreement, JudgePair
from apps.eval.scores.judgments import Contest, Judgment
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


def human_agreement(held: Sequence[Contest], uri: str) -> HumanAgreement:
    """How often the judge's verdicts equal people's, with ties and among decisions only."""
    human = _human_verdicts(uri)
    ours: list[int] = []
    theirs: list[int] = []
    for contest in held:
        if contest.outcome is None:
            continue
        a, b = contest.models
        verdict = human.get((contest.question_id, a, b))
        if verdict is None and (turned := human.get((contest.question_id, b, a))) is not None:
            verdict = -turned
        if verdict is not None:
            ours.append((contest.outcome > 0.5) - (contest.outcome < 0.5))
            theirs.append(verdict)
    if not ours:
        raise InputError(f"{uri} holds no verdict on any contest of this folder; check the names")
    decided = [(a, b) for a, b in zip(ours, theirs, strict=True) if a and b]
    return HumanAgreement(
        n=len(ours),
        agreement=sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(ours),
        kappa=cohen_kappa(ours, theirs),
        decided_n=len(decided),
        decided_agreement=sum(a == b for a, b in decided) / len(decided) if decided else None,
    )


def _human_verdicts(uri: str) -> dict[tuple[str, str, str], int]:
    """{(question_id, a, b): 1 a is better, 0 tie, -1 b is better}"""
    verdicts: dict[tuple[str, str, str], int] = {}
    for number, line in enumerate(storage.read_bytes(uri).splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
            first, second = record["models"]
            verdict = {first: 1, second: -1, "tie": 0}[record["winner"]]
            verdicts[str(record["question_id"]), first, second] = verdict
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"{uri} line {number} is not {{question_id, models: [a, b], winner: a, b or tie}}"
            ) from None
    return verdicts
