"""The fit that both style controls share gives what each gave by itself."""

import numpy as np
import pytest

from apps.common import logistic

DESIGN = np.array(
    [[1, -1, 0.5], [1, -1, -0.2], [-1, 1, 0.1], [1, -1, 0.9], [-1, 1, -0.4], [1, -1, 0.0]]
)
OUTCOME = np.array([1, 0, 0.5, 1, 0, 1.0])


def test_the_fit_is_that_of_fixed_numbers() -> None:
    """Coefficients of the two implementations that this one took the place of."""
    weights = np.array([1, 2, 0.5, 1, 1, 3.0])
    for ridge, weight, expected in (
        (1.0, None, [0.338777397163, -0.338777397163, 0.598823446103]),
        (0.5, None, [0.363197531061, -0.363197531061, 1.000179763647]),
        (0.5, weights, [0.381547252825, -0.381547252825, 1.161136596071]),
    ):
        assert logistic.fit(DESIGN, OUTCOME, ridge, weight) == pytest.approx(expected, abs=1e-11)


def test_the_covariance_is_that_of_fixed_numbers() -> None:
    beta = logistic.fit(DESIGN, OUTCOME, 1.0)
    variances = np.diag(logistic.covariance(DESIGN, OUTCOME, beta, 1.0, "aabbcc"))
    assert variances == pytest.approx([0.069148117127, 0.069148117127, 0.153321495928], abs=1e-11)


def test_a_weight_counts_as_so_many_battles() -> None:
    twice = logistic.fit(DESIGN, OUTCOME, 1.0, np.array([2, 1, 1, 1, 1, 1.0]))
    again = logistic.fit(np.vstack([DESIGN, DESIGN[:1]]), np.append(OUTCOME, 1.0), 1.0)
    assert twice == pytest.approx(again, abs=1e-9)


def test_a_model_that_never_lost_is_finite() -> None:
    assert logistic.fit(np.array([[1.0, -1.0]] * 40), np.ones(40), 1.0)[0] < 3
