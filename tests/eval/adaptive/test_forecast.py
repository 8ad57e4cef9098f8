"""What so many questions can tell is said before any is judged, of wins and of scores."""

import numpy as np
import pytest

from apps.eval.adaptive import forecast
from apps.eval.adaptive.forecast import Scored
from apps.eval.scores.statistics import Resampling, mean_interval


@pytest.mark.parametrize(("num_questions", "points"), [(1, 45), (10, 26), (80, 11), (1000, 3)])
def test_a_forecast_says_how_wide_the_interval_will_be(num_questions: int, points: int) -> None:
    assert round(100 * forecast.half_width(num_questions)) == points


def test_a_forecast_says_how_many_questions_tell_two_models_apart() -> None:
    assert forecast.questions_to_tell(0.6) == 93 and forecast.questions_to_tell(0.55) == 381
    assert "about 389 questions" in forecast.pair_sentence("a", "b", 45, 100)
    assert forecast.pair_sentence("a", "b", 45, 100).startswith("b takes 55 % against a")
    assert "are even" in forecast.pair_sentence("a", "b", 5, 10)


@pytest.mark.parametrize("num_questions", [3, 10, 80, 400])
@pytest.mark.parametrize("scale", [(1.0, 10.0), (0.0, 100.0), (1.0, 5.0)])
def test_the_width_foretold_for_a_mean_score_is_that_of_the_report(
    num_questions: int, scale: tuple[float, float]
) -> None:
    rng = np.random.default_rng(num_questions)
    low, high = scale
    widths, foretold = [], []
    for trial in range(12):
        scores = low + (high - low) * rng.beta(4, 2, num_questions)
        mean, spread = float(scores.mean()), float(scores.std())
        foretold.append(forecast.score_half_width(num_questions, scale, spread, mean))
        given = {str(i): [float(score)] for i, score in enumerate(scores)}
        ends = mean_interval(given, scale, Resampling(num_resamples=400, seed=trial))
        widths.append((ends[1] - ends[0]) / 2)
    assert np.mean(foretold) == pytest.approx(np.mean(widths), rel=0.12)


def scored(**scores: list[float]) -> list[Scored]:
    return [
        Scored(model=model, by_question={str(i): score for i, score in enumerate(mine)})
        for model, mine in scores.items()
    ]


def test_before_any_score_the_spread_is_that_of_public_reviews() -> None:
    told = forecast.score_sentence(80, (1.0, 10.0), [])
    assert "80 questions give a mean score from 1 to 10 to +-0.31 at 95 %" in told
    assert "scores spread by 1.3, as in public reviews" in told
    assert "at means 0.9 apart about 14 questions, at 0.45 about 56" in told
    assert "from 1 to 5 to +-0.14" in forecast.score_sentence(80, (1.0, 5.0), [])


def test_with_scores_the_spread_is_theirs() -> None:
    known = scored(a=[3.0, 5.0] * 10, b=[4.0, 4.0] * 10)
    told = forecast.score_sentence(80, (1.0, 5.0), known)
    assert "scores spread by 0.5, as they do so far" in told


def test_the_two_nearest_models_have_a_sentence() -> None:
    known = scored(a=[5.0, 4.0, 5.0, 4.0], b=[4.0, 4.0, 4.0, 4.0], c=[1.0, 1.0, 2.0, 1.0])
    told = forecast.closest_scores_sentence(known)
    assert told is not None and told.startswith("a and b are 0.5 apart over 4 questions")
    assert "about 4 questions" in told
    even = forecast.closest_scores_sentence(scored(a=[4.0, 4.0], b=[4.0, 4.0]))
    assert even == "a and b have one mean over 2 questions."
    even = forecast.closest_scores_sentence(scored(a=[0.1, 0.2, 0.3], b=[0.3, 0.1, 0.2]))
    assert even == "a and b have one mean over 3 questions.", "but for rounding"
    ahead = forecast.closest_scores_sentence(scored(a=[4.1, 3.1, 2.1], b=[3.0, 2.0, 1.0]))
    assert ahead == "a is 1.1 above b on each of 3 questions."
    assert forecast.closest_scores_sentence(scored(a=[4.0], b=[3.0])) is None
    assert forecast.closest_scores_sentence([]) is None
