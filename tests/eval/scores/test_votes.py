"""Judges that err alike are worth fewer votes than they are, and get weights accordingly."""

import numpy as np
import pytest

from apps.eval.scores.judgments import Contest
from apps.eval.scores.people import People
from apps.eval.scores.votes import effective_votes
from tests.eval.scores.test_scores import judgment


def panel(correlation: float, num_judges: int = 3, n: int = 4000) -> tuple[list[Contest], People]:
    """Judges whose error is a common coin with the given odds, else one of their own."""
    rng = np.random.default_rng(2)
    truth, common = rng.integers(0, 2, n), rng.random(n) < 0.3
    held = []
    for j in range(num_judges):
        own = rng.random(n) < 0.3
        is_common = rng.random(n) < np.sqrt(correlation)
        errs = np.where(is_common, common, own)
        outcome = np.where(errs, 1 - truth, truth)
        held += [contest(f"judge-{j}", i, float(o)) for i, o in enumerate(outcome)]
    outcomes = {(f"q{i}", "a", "b"): float(t) for i, t in enumerate(truth)}
    return held, People(outcomes=outcomes)


def contest(judge: str, place: int, outcome: float) -> Contest:
    return Contest(
        question_id=f"q{place}",
        models=("a", "b"),
        judge=judge,
        repeat=0,
        kind="contest",
        outcome=outcome,
        is_consistent=None,
    )


def test_three_judges_that_are_one_count_as_one() -> None:
    held, people = panel(1.0)
    found = effective_votes(held, [], people)
    assert found is not None and found.is_measured_by_people
    assert found.effective == pytest.approx(1.0, abs=0.01)


def test_more_common_error_is_fewer_votes() -> None:
    counts = []
    for correlation in (0.0, 0.3, 0.6, 0.9):
        found = effective_votes(*_split(panel(correlation)))
        assert found is not None
        counts.append(found.effective)
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 2.4 and counts[-1] < 1.3


def _split(made: tuple[list[Contest], People]):
    return made[0], [], made[1]


def test_without_people_the_number_is_a_lower_bound() -> None:
    held, people = panel(0.3)
    measured, bound = effective_votes(held, [], people), effective_votes(held, [], None)
    assert measured is not None and bound is not None
    assert not bound.is_measured_by_people and bound.effective < measured.effective


def test_a_copy_of_a_judge_gets_no_second_vote_and_dollars_count() -> None:
    held, people = panel(0.0, num_judges=2)
    copy = [contest("copy", int(c.question_id[1:]), c.outcome or 0.0) for c in held[:4000]]
    paid = [judgment(1.0, 0, "q0", judge=name, usd=20.0) for name in ("judge-0", "judge-1", "copy")]
    found = effective_votes([*held, *copy], paid, people)
    assert found is not None
    weights = {row.judge: row.weight for row in found.judges}
    assert weights["judge-0"] + weights["copy"] == pytest.approx(0.5, abs=0.08)
    assert found.effective_weighted >= found.effective
    assert found.usd_per_1000_effective == pytest.approx(1000 * 60 / 4000 / found.effective)


def test_one_judge_or_too_few_contests_tell_nothing() -> None:
    held, people = panel(0.0, num_judges=1, n=50)
    assert effective_votes(held, [], people) is None
    held, people = panel(0.0, num_judges=2, n=5)
    assert effective_votes(held, [], people) is None
