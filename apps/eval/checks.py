"""Is the judge itself to be believed? Canaries, drift between runs, and human verdicts."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from apps.common import storage
from apps.common.errors import InputError
from apps.eval.judgments import Contest, Judgment, contests
from apps.eval.plan import BETTER, load_canaries
from apps.eval.statistics import cohen_kappa

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


def human_agreement(held: Sequence[Contest], uri: str) -> dict[str, Any]:
    """How often the judge's verdicts equal people's, with ties and among decisions only."""
    human = _human_verdicts(uri)
    ours, theirs = [], []
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
    return {
        "n": len(ours),
        "agreement": sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(ours),
        "kappa": cohen_kappa(ours, theirs),
        "decided_n": len(decided),
        "decided_agreement": sum(a == b for a, b in decided) / len(decided) if decided else None,
    }


def _human_verdicts(uri: str) -> dict[tuple[str, str, str], int]:
    """{(question_id, a, b): 1 a is better, 0 tie, -1 b is better}"""
    found = {}
    for number, line in enumerate(storage.read_bytes(uri).splitlines(), 1):
        if not line.strip():
            continue
        record: Mapping[str, Any] = orjson.loads(line)
        try:
            first, second = record["models"]
            verdict = {first: 1, second: -1, "tie": 0}[record["winner"]]
        except (KeyError, ValueError):
            raise InputError(
                f"{uri} line {number} is not {{question_id, models: [a, b], winner: a, b or tie}}"
            ) from None
        found[str(record["question_id"]), first, second] = verdict
    return found
