"""How many contests settle the order of a league: `judge --adaptive` beside a round-robin.

    python benchmarks/adaptive.py [--leagues 10]

Simulated leagues of 20 models on 80 questions; strengths are normal with the given spread in
log-odds, of which 2.5 are 430 Elo. The round-robin judges 5 questions a pair, 950 contests, and
adaptive judging gets half of that. Prints Kendall's tau of both orders with the true one, and the
difference with its standard error.
"""

import argparse
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from apps.eval.adaptive import information

MODELS, QUESTIONS, PER_PAIR, ROUNDS = 20, 80, 5, 16


def tau(first_M: np.ndarray, second_M: np.ndarray) -> float:
    """Kendall's, of two lists of strengths without ties."""
    above = np.triu_indices(len(first_M), 1)
    signs = [np.sign(one[:, None] - one[None, :])[above] for one in (first_M, second_M)]
    return float((signs[0] * signs[1]).mean())


def league(seed: int, spread: float) -> tuple[float, float]:
    """tau of (the round-robin, adaptive judging at half its contests)."""
    rng = np.random.default_rng(seed)
    true_M = rng.normal(0.0, spread, MODELS)
    p_MM = 1.0 / (1.0 + np.exp(true_M[None, :] - true_M[:, None]))
    won_QMM = rng.random((QUESTIONS, MODELS, MODELS)) < p_MM
    wins_MM = np.triu(won_QMM[:PER_PAIR].sum(0), 1).astype(np.float64)
    wins_MM += np.triu(PER_PAIR - won_QMM[:PER_PAIR].sum(0), 1).T
    budget = MODELS * (MODELS - 1) // 2 * PER_PAIR // 2
    got_MM, left_MM = np.zeros((MODELS, MODELS)), np.full((MODELS, MODELS), float(QUESTIONS))
    while (spent := int(got_MM.sum())) < budget:
        size = min(budget // ROUNDS, budget - spent)
        standings = information.fit(got_MM)
        for i, j in information.next_contests(standings, got_MM + got_MM.T, left_MM, size):
            won = won_QMM[int(QUESTIONS - left_MM[i, j]), i, j]
            got_MM[(i, j) if won else (j, i)] += 1.0
            left_MM[i, j] -= 1.0
    return tau(true_M, information.fit(wins_MM).beta_M), tau(true_M, information.fit(got_MM).beta_M)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--leagues", type=int, default=10)
    args = parser.parse_args()
    print(f"{'spread':>8}{'round-robin':>14}{'half, adaptive':>16}{'difference':>13}")
    for spread in (1.0, 1.5, 2.5):
        taus = np.array([league(seed, spread) for seed in range(args.leagues)])
        gap = taus[:, 1] - taus[:, 0]
        error = gap.std() / np.sqrt(len(gap))
        means = taus.mean(0)
        print(f"{spread:>8}{means[0]:>14.3f}{means[1]:>16.3f}{gap.mean():>9.3f} +-{error:.3f}")


if __name__ == "__main__":
    main()
