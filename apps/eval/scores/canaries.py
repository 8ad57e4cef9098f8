"""Canaries: fixed pairs with a known winner, which show a judge that errs or drifts."""

from collections.abc import Sequence
from typing import Any

from apps.eval.judging.plan import BETTER, load_canaries
from apps.eval.scores.judgments import Judgment, contests

# Scores of one judge on the same canary move by about .2 between runs at temperature 0.
SCORE_DRIFT = 1.0


def canary_check(
    judgments: Sequence[Judgment], previous: Sequence[Judgment] = ()
) -> dict[str, Any] | None:
    """How many planted better answers each judge prefers, and what moved since `previous`."""
    now = _canary_results(judgments)
    if not now:
        return None
    before = _canary_results(previous)
    result: dict[str, Any] = {
        "right": sum(value["right"] for value in now.values()),
        "n": len(now),
        "total": len(load_canaries()) * len({item.judge for item in judgments}),
        "drift": None,
    }
    shared = sorted(now.keys() & before.keys())
    if shared:
        result["drift"] = {
            "n": len(shared),
            "flipped": sum(now[key]["right"] != before[key]["right"] for key in shared),
            "mean_shift": sum(abs(now[key]["lead"] - before[key]["lead"]) for key in shared)
            / len(shared),
            "has_drifted": any(
                now[key]["right"] != before[key]["right"]
                or abs(now[key]["lead"] - before[key]["lead"]) > SCORE_DRIFT
                for key in shared
            ),
        }
    return result


def _canary_results(judgments: Sequence[Judgment]) -> dict[tuple[str, str], dict[str, Any]]:
    """{(judge, canary): {right, lead}}; the lead of the better answer over the worse one."""
    items = [item for item in judgments if item.kind == "canary" and item.status == "ok"]
    results: dict[tuple[str, str], dict[str, Any]] = {}
    for contest in contests(items):
        if contest.outcome is not None:
            lead = 2.0 * contest.outcome - 1.0
            results[contest.judge, contest.question_id] = {"right": lead > 0, "lead": lead}
    singles: dict[tuple[str, str], dict[bool, float]] = {}
    for item in items:
        if len(item.models) == 1 and item.scores:
            both = singles.setdefault((item.judge, item.question_id), {})
            both[item.models[0] == BETTER] = item.scores[0]
    for key, scores in singles.items():
        if len(scores) == 2:
            lead = scores[True] - scores[False]
            results[key] = {"right": lead > 0, "lead": lead}
    return results
