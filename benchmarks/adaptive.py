"""How many contests settle the order of a league: `judge --adaptive` beside a round-robin.

    python benchmarks/adaptive.py [--leagues 10] [--blog FOLDER]

Simulated leagues of 20 models on 80 questions; strengths are normal with the given spread in
log-odds, of which 2.5 are 430 Elo. The round-robin judges 5 questions a pair, 950 contests, and
adaptive judging gets half of that. Prints Kendall's tau of both orders with the true one, and the
difference with its standard error.

Beside them stands what half the contests can give at best: dealt out by one who knows the true
strengths beforehand, so that the fewest wrong orders are expected. No rule that must learn them can
be expected to do better. It is compared with the round-robin by the same normal approximation.

`--blog` takes the public reviews (question.jsonl, review/): how many of the 320 settle the order.
"""

import argparse
import json
import math
import os
import sys
from pathlib import Path

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


def expected_tau(true_M: np.ndarray, games_P: np.ndarray) -> tuple[float, np.ndarray]:
    """tau to expect of so many contests a pair, and what one more of each pair adds to it."""
    i_P, j_P = np.triu_indices(MODELS, 1)
    gap_P = true_M[i_P] - true_M[j_P]
    weight_P = 1.0 / (2.0 + np.exp(gap_P) + np.exp(-gap_P))
    hessian_MM = np.zeros((MODELS, MODELS))
    flow_P = (games_P + information.prior_ties(MODELS)) * weight_P
    for row_P, column_P, sign in ((i_P, i_P, 1), (j_P, j_P, 1), (i_P, j_P, -1), (j_P, i_P, -1)):
        np.add.at(hessian_MM, (row_P, column_P), sign * flow_P)
    covariance_MM = np.linalg.pinv(hessian_MM, hermitian=True)
    shift_MP = covariance_MM[:, i_P] - covariance_MM[:, j_P]
    effect_PP = shift_MP[i_P] - shift_MP[j_P]
    variance_P = np.diag(effect_PP)
    z_P = np.abs(gap_P) / np.sqrt(variance_P)
    wrong_P = np.array([0.5 * math.erfc(z / math.sqrt(2)) for z in z_P])
    slope_P = np.exp(-(z_P**2) / 2) / math.sqrt(2 * math.pi) * z_P / (2 * variance_P)
    gain_P = 2 / len(z_P) * (slope_P[:, None] * effect_PP**2).sum(0) * weight_P
    return float(1 - 2 * wrong_P.mean()), gain_P


def best_beforehand(seed: int, spread: float, share: float) -> float:
    """What a share of the round-robin's contests can give, less what all of them give.

    Contests move to where they add more, until nothing is gained.
    """
    true_M = np.random.default_rng(seed).normal(0.0, spread, MODELS)
    num_pairs = MODELS * (MODELS - 1) // 2
    games_P = np.full(num_pairs, share * PER_PAIR)
    total, best = games_P.sum(), -1.0
    for _ in range(300):
        tau_now, gain_P = expected_tau(true_M, games_P)
        best = max(best, tau_now)
        games_P = games_P * np.sqrt(gain_P)
        games_P *= total / games_P.sum()
    return best - expected_tau(true_M, np.full(num_pairs, float(PER_PAIR)))[0]


def replay(folder: Path) -> None:
    """The public reviews dealt out in rounds, until the order of the five models is settled."""
    results: dict[tuple[str, str], list[float]] = {}
    for path in sorted((folder / "review").glob("review_*_vicuna-13b.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        other = path.stem.split("_")[1]
        scores = [line["score"] for line in lines]
        results["vicuna-13b", other] = [0.5 + 0.5 * np.sign(b - a) for a, b in scores]
    models = ["vicuna-13b", *(other for _, other in results)]
    rng = np.random.default_rng(0)
    counts, same, at_half, even = [], 0, [], []
    most = sum(map(len, results.values()))
    for _ in range(20):
        decks = {pair: list(rng.permutation(shares)) for pair, shares in results.items()}
        all_MM, got_MM, left_MM = (np.zeros((len(models), len(models))) for _ in range(3))
        for (_, other), shares in decks.items():
            place = models.index(other)
            all_MM[0, place], all_MM[place, 0] = sum(shares), len(shares) - sum(shares)
            left_MM[0, place] = left_MM[place, 0] = len(shares)
        all_M = information.fit(all_MM).beta_M
        even_MM = np.zeros_like(all_MM)
        for (_, other), shares in decks.items():
            place, half = models.index(other), len(shares) // 2
            even_MM[0, place] = sum(shares[:half])
            even_MM[place, 0] = half - even_MM[0, place]
        even.append(tau(all_M, information.fit(even_MM).beta_M))
        half_tau = None
        while True:
            standings = information.fit(got_MM)
            games_MM = got_MM + got_MM.T
            if information.is_settled(standings, games_MM, left_MM, 0.95) or not left_MM.any():
                break
            for first, second in information.next_contests(standings, games_MM, left_MM, 5):
                share = decks[models[first], models[second]].pop()
                got_MM[first, second] += share
                got_MM[second, first] += 1 - share
                left_MM[first, second] -= 1
                left_MM[second, first] -= 1
            if half_tau is None and got_MM.sum() >= most // 2:
                half_tau = tau(all_M, information.fit(got_MM).beta_M)
        counts.append(int(got_MM.sum()))
        settled_tau = tau(all_M, information.fit(got_MM).beta_M)
        same += settled_tau == 1
        at_half.append(settled_tau if half_tau is None else half_tau)
    print(f"public reviews: settled after {min(counts)} to {max(counts)}, on average")
    print(f"{np.mean(counts):.0f} of {most}; the order of all {most} in {same} of 20 shuffles")
    print(f"tau with that order after half of them: {np.mean(at_half):.3f}, ", end="")
    print(f"{np.mean(even):.3f} when each model has half of its reviews")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--leagues", type=int, default=10)
    parser.add_argument("--blog", type=Path, help="folder of the public reviews")
    args = parser.parse_args()
    if args.blog:
        replay(args.blog)
        return
    print(f"{'spread':>8}{'round-robin':>14}{'half, adaptive':>16}{'difference':>13}", end="")
    print(f"{'half, at best':>18}{'two thirds':>12}{'five sixths':>12}")
    for spread in (1.0, 1.5, 2.5):
        taus = np.array([league(seed, spread) for seed in range(args.leagues)])
        gap = taus[:, 1] - taus[:, 0]
        error = gap.std() / np.sqrt(len(gap))
        means = taus.mean(0)
        print(
            f"{spread:>8}{means[0]:>14.3f}{means[1]:>16.3f}{gap.mean():>9.3f} +-{error:.3f}", end=""
        )
        for share, width in ((1 / 2, 18), (2 / 3, 12), (5 / 6, 12)):
            best = [best_beforehand(seed, spread, share) for seed in range(args.leagues)]
            print(f"{np.mean(best):>{width}.3f}", end="")
        print(flush=True)


if __name__ == "__main__":
    main()
