"""Agreement and intervals equal independent implementations, and count questions, not rows."""

import tracemalloc

import krippendorff
import numpy as np
import pytest

from apps.eval.scores.statistics import (
    Resampling,
    cohen_kappa,
    krippendorff_alpha,
    mean_interval,
    ratio_interval,
    wilson_interval,
)


def test_alpha_of_many_answers_takes_little_memory() -> None:
    rng = np.random.default_rng(0)
    ratings = {
        judge: dict(enumerate(rng.integers(1, 10, 4000).astype(float).tolist())) for judge in "ab"
    }
    tracemalloc.start()
    alpha = krippendorff_alpha(ratings, True)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert abs(alpha) < 0.1 and most_bytes < 10e6


def test_alpha_does_not_depend_on_where_the_scale_begins() -> None:
    near = {"a": {0: 1.0, 1: 2.0, 2: 4.0}, "b": {0: 1.0, 1: 3.0, 2: 4.0}}
    far = {judge: {i: v + 1e6 for i, v in mine.items()} for judge, mine in near.items()}
    assert krippendorff_alpha(far, True) == pytest.approx(krippendorff_alpha(near, True))
    same = {judge: dict.fromkeys(range(3), 0.1) for judge in "ab"}
    assert krippendorff_alpha(same, True) == 1.0


@pytest.mark.parametrize("is_interval", [False, True])
@pytest.mark.parametrize("num_judges", [2, 3, 5])
@pytest.mark.parametrize("scale", [0.1, 1 / 3, 1.0, 7.7])
def test_alpha_of_judges_who_agree_is_one(num_judges: int, scale: float, is_interval: bool) -> None:
    said = {item: scale * (1 + item % 10) for item in range(100)}
    agreed = {f"judge-{j}": said for j in range(num_judges)}
    assert krippendorff_alpha(agreed, is_interval) == 1.0


@pytest.mark.parametrize("is_interval", [False, True])
def test_alpha_equals_the_reference_implementation_with_missing_ratings(is_interval) -> None:
    rng = np.random.default_rng(3)
    table = rng.integers(1, 5, size=(3, 40)).astype(float)
    table[1] = np.where(rng.random(40) < 0.6, table[0], table[1])
    table[rng.random((3, 40)) < 0.15] = np.nan
    ratings = {
        f"judge-{j}": {i: v for i, v in enumerate(row) if not np.isnan(v)}
        for j, row in enumerate(table)
    }
    level = "interval" if is_interval else "nominal"
    expected = krippendorff.alpha(reliability_data=table, level_of_measurement=level)
    assert krippendorff_alpha(ratings, is_interval) == pytest.approx(expected)


def test_kappa_of_the_textbook_table() -> None:
    """Cohen's 2 x 2: 20 both yes, 15 both no, 5 and 10 apart: kappa .4."""
    first = ["y"] * 20 + ["y"] * 5 + ["n"] * 10 + ["n"] * 15
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)
    assert cohen_kappa(["a", "a"], ["a", "a"]) == 1.0


def test_doubling_the_rows_of_a_question_leaves_its_interval() -> None:
    values = {str(i): [float(v)] for i, v in enumerate(np.random.default_rng(0).random(50))}
    doubled = {key: found * 2 for key, found in values.items()}
    assert mean_interval(values, (0, 1)) == pytest.approx(mean_interval(doubled, (0, 1)))


def test_the_published_ratio_lies_in_its_paired_interval() -> None:
    from apps.eval.replay import shipped_reviews

    rows = [row for row in shipped_reviews("published") if row.baseline == "gpt35"]
    over = np.array([row.vicuna_score for row in rows])
    under = np.array([row.baseline_score for row in rows])
    low, high = ratio_interval(over, under, (1.0, 10.0), Resampling(num_resamples=5000))
    assert (low, high) == pytest.approx((0.879, 0.958), abs=0.006)


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    low, high = wilson_interval(80, 100)
    assert (low, high) == pytest.approx((0.711, 0.867), abs=0.001)
