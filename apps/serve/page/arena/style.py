"""Ratings once length and layout are taken out: what a model says, less how it dresses it.

Each vote's log-odds are the models' difference in strength plus what the difference in style adds.
The method is LMArena's style control: https://lmsys.org/blog/2024-08-28-style-control/
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apps.common import logistic
from apps.common.ratings import Floats, to_elo

STYLES = ("length", "headings", "lists", "bold")
_PATTERNS = (
    re.compile(r"^#{1,6} ", re.M),
    re.compile(r"^\s*(?:[-*+]|\d+[.)]) ", re.M),
    re.compile(r"\*\*[^*\n]+\*\*"),
)
_RIDGE = 0.5  # on every coefficient: keeps a model that never lost finite
_NUM_RESAMPLES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class StyledVote:
    """A vote with the last answer of each side."""

    visitor_id: str
    left: str
    right: str
    outcome: float
    left_text: str
    right_text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class IntervalRating:
    """One line of a table, on the leaderboard's scale."""

    rank: int
    model: str
    rating: int
    low: int
    high: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleTable:
    """Ratings, best first, and how much each style wins."""

    ratings: list[IntervalRating]
    effects: dict[str, float]
    """log-odds by which an answer gains that has all of the style, beside one that has none"""


def features(text: str) -> list[int]:
    """Characters, headings, list items and bold words."""
    return [len(text), *(len(pattern.findall(text)) for pattern in _PATTERNS)]


def controlled(votes: Sequence[StyledVote]) -> StyleTable:
    if not votes:
        return StyleTable(ratings=[], effects={})
    names = sorted({vote.left for vote in votes} | {vote.right for vote in votes})
    design_NF = _design(votes, names)
    outcome_N = np.array([vote.outcome for vote in votes])
    visitors = {visitor_id: i for i, visitor_id in enumerate({v.visitor_id: 0 for v in votes})}
    visitor_N = np.array([visitors[vote.visitor_id] for vote in votes])
    best_F = logistic.fit(design_NF, outcome_N, _RIDGE)
    rng = np.random.default_rng(0)
    size = len(names)
    resampled_BM = np.array(
        [
            logistic.fit(design_NF, outcome_N, _RIDGE, weight_Q[visitor_N])[:size]
            for weight_Q in rng.exponential(size=(_NUM_RESAMPLES, len(visitors)))
        ]
    )
    low_M, high_M = np.quantile(resampled_BM, [0.025, 0.975], axis=0)
    low_M, high_M = np.minimum(low_M, best_F[:size]), np.maximum(high_M, best_F[:size])
    rows = [
        IntervalRating(
            rank=1 + int((low_M > high_M[i]).sum()),
            model=name,
            rating=_points(best_F[i]),
            low=_points(low_M[i]),
            high=_points(high_M[i]),
        )
        for i, name in enumerate(names)
    ]
    effects = {name: round(float(best_F[size + i]), 2) for i, name in enumerate(STYLES)}
    return StyleTable(ratings=sorted(rows, key=lambda row: -row.rating), effects=effects)


def _design(votes: Sequence[StyledVote], names: Sequence[str]) -> Floats:
    """A row of two models, a first of three, 300 characters to 100: [1, -1, 0, 0.5, 0, 0, 0]."""
    size = len(names)
    index = {name: i for i, name in enumerate(names)}
    design_NF = np.zeros((len(votes), size + len(STYLES)))
    for row_F, vote in zip(design_NF, votes, strict=True):
        row_F[index[vote.left]] += 1
        row_F[index[vote.right]] -= 1
        pairs = zip(features(vote.left_text), features(vote.right_text), strict=True)
        row_F[size:] = [(a - b) / (a + b) if a + b else 0.0 for a, b in pairs]
    return design_NF


def _points(beta: float) -> int:
    return round(float(to_elo(np.array([beta]))[0]))
