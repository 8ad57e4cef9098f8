"""A win rate corrected by people's verdicts stays true though the judge errs."""

import numpy as np
import pytest

from apps.eval.scores.calibration import calibration, corrected_mean, least_width_share
from apps.eval.scores.judgments import contests
from apps.eval.scores.people import People
from apps.eval.scores.statistics import Resampling
from tests.eval.scores.test_scores import judgment


def simulated(trials: int, labels: int, others: int, p: float, leaning: float):
    """Shares held and mean widths, [corrected, people alone, the judge as if it were people]."""
    rng = np.random.default_rng(11)
    held, widths = np.zeros(3), np.zeros(3)
    for trial in range(trials):
        people = (rng.random(labels + others) < p).astype(float)
        random = (rng.random(labels + others) < 0.5 + leaning).astype(float)
        judge = np.where(rng.random(labels + others) < 0.85, people, random)
        draw = Resampling(num_resamples=300, seed=trial)
        none = np.zeros(0)
        intervals = [
            corrected_mean(people[:labels], judge[:labels], judge[labels:], draw)[1],
            corrected_mean(people[:labels], judge[:labels], none, draw)[1],
            corrected_mean(judge, judge, none, draw)[1],
        ]
        held += [low <= p <= high for low, high in intervals]
        widths += [high - low for low, high in intervals]
    return held / trials, widths / trials


@pytest.mark.parametrize(
    ("labels", "others", "p", "leaning"),
    [(10, 70, 0.65, 0.2), (20, 180, 0.5, 0.3), (40, 400, 0.9, 0.0), (100, 700, 0.5, -0.3)],
)
def test_the_corrected_interval_holds_the_truth_and_is_narrower_than_people_alone(
    labels: int, others: int, p: float, leaning: float
) -> None:
    held, widths = simulated(300, labels, others, p, leaning)
    assert held[0] >= 0.92 and held[1] >= 0.92
    assert widths[0] < 0.85 * widths[1]


@pytest.mark.parametrize(
    ("correlation", "labels", "others", "share"),
    [(0.85, 40, 400, 0.586), (0.866, 1, 10**9, 0.5), (0.95, 10, 10, 0.741), (0.0, 10, 90, 1.0)],
)
def test_the_least_width_is_what_the_correlation_leaves(
    correlation: float, labels: int, others: int, share: float
) -> None:
    assert least_width_share(correlation, labels, others) == pytest.approx(share, abs=0.001)


@pytest.mark.parametrize(("labels", "others"), [(40, 400), (100, 100)])
def test_the_corrected_interval_comes_near_the_least_width_and_not_below(
    labels: int, others: int
) -> None:
    """Without a lean, a judge that guesses in 15 of 100 cases has a correlation of .85."""
    _, widths = simulated(120, labels, others, 0.5, 0.0)
    least = least_width_share(0.85, labels, others)
    assert least - 0.03 < widths[0] / widths[1] < least + 0.06


def test_the_judge_alone_would_claim_too_much() -> None:
    held, _ = simulated(200, 100, 900, 0.5, -0.4)
    assert held[2] < 0.5 and held[0] >= 0.92


def test_a_judge_that_knows_nothing_leaves_people_alone() -> None:
    rng = np.random.default_rng(3)
    people, judge = rng.integers(0, 2, 200) * 1.0, rng.integers(0, 2, 2000) * 1.0
    rate, _, weight = corrected_mean(people, judge[:200], judge[200:], Resampling())
    assert weight < 0.15 and rate == pytest.approx(people.mean(), abs=0.02)


def test_the_worked_example() -> None:
    human, judge, rest = np.array([1.0, 0.0]), np.array([1.0, 1.0]), np.array([1.0, 0.0])
    rate, _, weight = corrected_mean(human, judge, rest, Resampling())
    assert weight == 0.0 and rate == 0.5, "a judge that never varies tells nothing"


@pytest.mark.parametrize("share", [0.1, 1 / 3, 2 / 3, 0.7])
@pytest.mark.parametrize("num_questions", [3, 7, 30])
def test_people_who_say_the_same_of_every_question_go_with_no_judge(
    share: float, num_questions: int
) -> None:
    """A mean of equal shares is rounded, and then spreads by a little."""
    held = contests([judgment(i % 2, 0, f"q{i}") for i in range(num_questions)])
    alike = {(f"q{i}", "a", "b"): share for i in range(num_questions)}
    found = calibration(held, People(outcomes=alike), Resampling(num_resamples=50))
    assert found is not None and found.pairs[0].correlation is None


def test_agreement_matches_verdicts_in_either_order() -> None:
    held = contests([judgment(1, o, f"q{i}") for i in range(3) for o in (0, 1)])
    people = People(outcomes={("q0", "a", "b"): 1.0, ("q1", "b", "a"): 0.0, ("q2", "a", "b"): 0.5})
    found = calibration(held, people, Resampling())
    assert found is not None
    agreement = found.agreement
    assert (agreement.n, agreement.decided_n, agreement.decided_agreement) == (3, 2, 1.0)
    assert agreement.agreement == pytest.approx(2 / 3)
    (pair,) = found.pairs
    assert (pair.human_n, pair.judged_n, pair.judge_win_rate) == (3, 3, 1.0)
    assert (pair.correlation, pair.width_share, pair.least_width_share) == (None, 1.0, 1.0)
    assert calibration(held, People(outcomes={}), Resampling()) is None


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_an_interval_holds_the_rate_that_all_outcomes_share(outcome: float) -> None:
    for others in (0, 20):
        human, judge = np.full(3, outcome), np.full(3, outcome)
        rest = np.full(others, outcome)
        rate, (low, high), _ = corrected_mean(human, judge, rest, Resampling())
        assert rate == outcome and low <= rate <= high
