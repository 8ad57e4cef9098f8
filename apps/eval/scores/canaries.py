"""Canaries: fixed pairs with a known winner, which show a judge that errs or drifts."""

from collections.abc import Sequence

from apps.eval.figures.judges import Canaries, Drift
from apps.eval.judging.plan import BETTER, load_canaries
from apps.eval.scores.judgments import Judgment, contests, points_of_scale

# Scores of one judge on the same canary move by about .2 between runs at temperature 0. Points of a
# scale from 1 to 10; of another scale, as large a share.
SCORE_DRIFT = 1.0

Leads = dict[tuple[str, str], float]
"""{(judge, canary): lead of the better answer over the worse one}"""


def canary_check(
    judgments: Sequence[Judgment], previous: Sequence[Judgment] = ()
) -> Canaries | None:
    """How many planted better answers each judge prefers, and what moved since `previous`."""
    now = _leads(judgments)
    if not now:
        return None
    return Canaries(
        right=sum(lead > 0 for lead in now.values()),
        n=len(now),
        total=len(load_canaries()) * len({item.judge for item in judgments}),
        drift=_drift(now, _leads(previous), _most(judgments)),
    )


def _most(judgments: Sequence[Judgment]) -> float:
    """The largest shift of a lead that is no drift; a pair won in place of a tie shifts by 1."""
    alone = [item for item in judgments if len(item.models) == 1 and item.scores]
    return points_of_scale(alone, SCORE_DRIFT) if alone else 1.0


def _drift(now: Leads, before: Leads, most: float) -> Drift | None:
    shared = sorted(now.keys() & before.keys())
    if not shared:
        return None
    flipped = sum((now[key] > 0) != (before[key] > 0) for key in shared)
    shifts = [abs(now[key] - before[key]) for key in shared]
    return Drift(
        n=len(shared),
        flipped=flipped,
        mean_shift=sum(shifts) / len(shared),
        has_drifted=flipped > 0 or max(shifts) > most * (1.0 + 1e-9),
    )


def _leads(judgments: Sequence[Judgment]) -> Leads:
    items = [item for item in judgments if item.kind == "canary" and item.status == "ok"]
    leads = {
        (contest.judge, contest.question_id): 2.0 * contest.outcome - 1.0
        for contest in contests(items)
        if contest.outcome is not None
    }
    singles: dict[tuple[str, str], dict[bool, float]] = {}
    for item in items:
        if len(item.models) == 1 and item.scores:
            both = singles.setdefault((item.judge, item.question_id), {})
            both[item.models[0] == BETTER] = item.scores[0]
    for key, scores in singles.items():
        if len(scores) == 2:
            leads[key] = scores[True] - scores[False]
    return leads
