"""Ratings agree with an independent implementation and with what was simulated."""

import evalica
import numpy as np
import pytest

from apps.common import ratings
from apps.common.errors import InputError


def simulated(num_battles: int, num_models: int, num_clusters: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    strength_M = rng.normal(size=num_models)
    first_N = rng.integers(num_models, size=num_battles)
    second_N = (first_N + rng.integers(1, num_models, size=num_battles)) % num_models
    p_N = 1 / (1 + np.exp(strength_M[second_N] - strength_M[first_N]))
    outcome_N = (rng.random(num_battles) < p_N).astype(np.float64)
    outcome_N[rng.random(num_battles) < 0.2] = 0.5
    return ratings.Battles(
        models=tuple(f"m{i:02}" for i in range(num_models)),
        first_N=first_N,
        second_N=second_N,
        outcome_N=outcome_N,
        cluster_N=rng.integers(num_clusters, size=num_battles),
    )


def test_bradley_terry_equals_evalica() -> None:
    battles = simulated(3000, 12, 200)
    names = np.array(battles.models)
    outcomes = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    theirs = evalica.bradley_terry(
        names[battles.first_N].tolist(),
        names[battles.second_N].tolist(),
        [outcomes[value] for value in battles.outcome_N.tolist()],
        tolerance=1e-12,
        limit=10_000,
    )
    log_odds = np.log(theirs.scores[list(battles.models)].to_numpy())
    ours = ratings.bradley_terry(ratings.win_matrix(battles))
    np.testing.assert_allclose(ours, log_odds - log_odds.mean(), atol=1e-9)


def test_sandwich_and_cluster_bootstrap_agree() -> None:
    battles = simulated(4000, 8, 400)
    beta_M = ratings.bradley_terry(ratings.win_matrix(battles))
    sandwich = np.sqrt(np.diag(ratings.sandwich_covariance(battles, beta_M)))
    resampled = ratings.bootstrap(battles, 400).std(0)
    np.testing.assert_allclose(resampled, sandwich, rtol=0.15)


def test_doubling_every_battle_inside_its_cluster_leaves_the_interval() -> None:
    """Two orders of one question are one observation, not two."""
    battles = simulated(600, 5, 100)
    doubled = ratings.Battles(
        models=battles.models,
        **{
            name: np.tile(getattr(battles, name), 2)
            for name in ("first_N", "second_N", "outcome_N", "cluster_N")
        },
    )
    for once, twice in zip(ratings.leaderboard(battles), ratings.leaderboard(doubled), strict=True):
        assert twice.rating == pytest.approx(once.rating)
        assert twice.high - twice.low == pytest.approx(once.high - once.low, rel=0.02)


def test_a_model_that_never_wins_is_refused_without_a_prior_and_ranked_with_one() -> None:
    records = [("a", "b", 1.0, i) for i in range(20)]
    battles = ratings.Battles.of(records)
    with pytest.raises(InputError, match="prior_ties"):
        ratings.bradley_terry(ratings.win_matrix(battles))
    best, worst = ratings.leaderboard(battles)
    assert (best.model, worst.model) == ("a", "b")
    assert np.isfinite(best.rating) and worst.rank == 2


def test_a_tie_is_half_a_win() -> None:
    wins = ratings.win_matrix(ratings.Battles.of([("a", "b", 0.5, 0), ("a", "b", 1.0, 1)]))
    assert wins.tolist() == [[0.0, 1.5], [0.5, 0.0]]


def test_elo_of_one_win_is_the_textbook_step() -> None:
    battles = ratings.Battles.of([("a", "b", 1.0, 0)])
    assert ratings.elo(battles, k=32).tolist() == [1016.0, 984.0]


def test_no_battles_make_an_empty_leaderboard() -> None:
    assert ratings.leaderboard(ratings.Battles.of([])) == []


def test_an_outcome_outside_0_to_1_is_refused() -> None:
    with pytest.raises(InputError, match=r"0\.\.1"):
        ratings.Battles.of([("a", "b", 2.0, 0)])
