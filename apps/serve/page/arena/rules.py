"""Which votes look bought: left out of the ratings, kept with the reason. Pure; no database.

Four rules look at what a visitor can hardly hide. `too_fast`: a visitor votes again before a person
could have asked, and read two answers. `many_of_one_address`: one block of addresses gives more
votes a day than a class room. `picks_battles`: a visitor votes where one model stands, and passes
the other battles by. `one_sided`: a visitor favours one model beyond what its strength and chance
explain.

The last is a mixture, fitted by expectation and maximisation for each model: a visitor is honest
and follows the Bradley-Terry odds, or is a fan and votes for the model in 19 of 20 battles. Nobody
is left out for it until the mixture explains all votes on the model far better than honesty alone,
so that an honest arena loses no vote to it. Source of the fit: Dempster, Laird and Rubin (1977).
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from apps.common import ratings

TOO_FAST = "too_fast"
MANY_OF_ONE_ADDRESS = "many_of_one_address"
PICKS_BATTLES = "picks_battles"
ONE_SIDED = "one_sided"

_LEAST_GAP_S = 3.0
_DAY_S = 86_400.0
_MAX_A_DAY = 150
_PICKED_BY_CHANCE = 1e-5
_FAN = 0.95
_MIN_GAIN = 4.0
"""log-likelihood that the fans must explain; by chance they do once in 400 models"""
_ROUNDS = 4
_STEPS = 60

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class RuledVote:
    """What the rules look at."""

    battle_id: str
    visitor_id: str
    address: str
    created_s: float
    left: str
    right: str
    outcome: float
    """1: left won, 0: right, 0.5: neither"""


def left_out(
    votes: Sequence[RuledVote], drawn: Mapping[str, Sequence[tuple[str, str]]]
) -> dict[str, str]:
    """Rule by battle id, for the votes that do not count.

    Args:
        votes: blind votes in the order they came
        drawn: the pairs of every battle that a visitor could vote on, and did or did not; those of
            votes that are left out before are not held against the others
    """
    pairs = {visitor_id: list(own) for visitor_id, own in drawn.items()}
    reasons = _too_fast(votes)
    rest = [vote for vote in votes if vote.battle_id not in reasons]
    reasons |= _many_of_one_address(rest)
    rest = [vote for vote in votes if vote.battle_id not in reasons]
    for vote in votes:
        own = pairs.get(vote.visitor_id, [])
        if vote.battle_id in reasons and (vote.left, vote.right) in own:
            own.remove((vote.left, vote.right))
    reasons |= _picks_battles(rest, pairs)
    rest = [vote for vote in votes if vote.battle_id not in reasons]
    return reasons | _one_sided(rest)


def _too_fast(votes: Sequence[RuledVote]) -> dict[str, str]:
    """Votes at 0, 1 and 5 s: the second one's battle was begun, read and judged within a second."""
    return {
        vote.battle_id: TOO_FAST
        for own in _by_visitor(votes).values()
        for before, vote in itertools.pairwise(own)
        if vote.created_s - before.created_s < _LEAST_GAP_S
    }


def _many_of_one_address(votes: Sequence[RuledVote]) -> dict[str, str]:
    """The votes after the first so many of a day; the first ones may be anybody's."""
    seen: Counter[tuple[str, int]] = Counter()
    reasons: dict[str, str] = {}
    for vote in votes:
        day = (vote.address, int(vote.created_s // _DAY_S))
        seen[day] += 1
        if seen[day] > _MAX_A_DAY:
            reasons[vote.battle_id] = MANY_OF_ONE_ADDRESS
    return reasons


def _picks_battles(
    votes: Sequence[RuledVote], drawn: Mapping[str, Sequence[tuple[str, str]]]
) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for visitor_id, own in _by_visitor(votes).items():
        pairs = drawn.get(visitor_id, ())
        shown = Counter(name for pair in pairs for name in set(pair))
        voted = Counter(name for vote in own for name in (vote.left, vote.right))
        if any(
            _chance(len(pairs), shown[name], len(own), count) < _PICKED_BY_CHANCE
            for name, count in voted.items()
        ):
            reasons |= {vote.battle_id: PICKS_BATTLES for vote in own}
    return reasons


def _chance(num_drawn: int, with_model: int, num_voted: int, voted_with: int) -> float:
    """That so many of the voted battles have the model, when which ones are voted on is chance.

    The upper tail of the hypergeometric distribution: 10 drawn, 2 with the model, 2 voted on, both
    with it: 1 of the 45 ways.
    """
    if num_drawn < num_voted or with_model < voted_with:
        return 1.0
    ways = math.comb(num_drawn, num_voted)
    tail = sum(
        math.comb(with_model, k) * math.comb(num_drawn - with_model, num_voted - k)
        for k in range(voted_with, min(with_model, num_voted) + 1)
    )
    return tail / ways


def _one_sided(votes: Sequence[RuledVote]) -> dict[str, str]:
    """Refits strengths without the fans found so far, until no more are found."""
    reasons: dict[str, str] = {}
    for _ in range(_ROUNDS):
        counted = [vote for vote in votes if vote.battle_id not in reasons]
        if len(counted) < 2:
            return reasons
        strength = _strengths(counted)
        found: dict[str, str] = {}
        for model in strength:
            found |= dict.fromkeys(_fans(votes, model, strength), ONE_SIDED)
        if found.keys() == reasons.keys():
            return reasons
        reasons = found
    return reasons


def _strengths(votes: Sequence[RuledVote]) -> dict[str, float]:
    battles = ratings.Battles.of((v.left, v.right, v.outcome, v.visitor_id) for v in votes)
    strengths_M = ratings.bradley_terry(ratings.win_matrix(battles), prior_ties=1.0)
    return dict(zip(battles.models, strengths_M.tolist(), strict=True))


def _fans(votes: Sequence[RuledVote], model: str, strength: Mapping[str, float]) -> list[str]:
    """Battles with the model, of the visitors who are likelier its fans than honest."""
    own = [v for v in votes if model in (v.left, v.right) and v.left != v.right]
    own = [v for v in own if v.left in strength and v.right in strength]
    if not own:
        return []
    visitors = {
        vote.visitor_id: i for i, vote in enumerate({v.visitor_id: v for v in own}.values())
    }
    visitor_N = np.array([visitors[v.visitor_id] for v in own])
    won_N = np.array([v.outcome if v.left == model else 1 - v.outcome for v in own])
    gap_N = np.array(
        [strength[model] - strength[v.right if v.left == model else v.left] for v in own]
    )
    p_N = 1 / (1 + np.exp(-gap_N))
    ratio_N = won_N * np.log(_FAN / p_N) + (1 - won_N) * np.log((1 - _FAN) / (1 - p_N))
    fan_V = _posterior(np.bincount(visitor_N, ratio_N, len(visitors)).astype(np.float64))
    return [v.battle_id for v, i in zip(own, visitor_N, strict=True) if fan_V[i] > 0.5]


def _posterior(log_ratio_V: Floats) -> Floats:
    """How likely each visitor is a fan; all zero when honesty explains the votes well enough."""
    ratio_V = np.exp(np.clip(log_ratio_V, -50, 50))
    share = 0.05
    fan_V = np.zeros_like(ratio_V)
    for _ in range(_STEPS):
        fan_V = share * ratio_V / (1 - share + share * ratio_V)
        share = float(np.clip(fan_V.mean(), 1e-6, 0.9))
    gain = float(np.log1p(share * (ratio_V - 1)).sum())
    return fan_V if gain > _MIN_GAIN else np.zeros_like(fan_V)


def _by_visitor(votes: Sequence[RuledVote]) -> dict[str, list[RuledVote]]:
    own: dict[str, list[RuledVote]] = defaultdict(list)
    for vote in votes:
        own[vote.visitor_id].append(vote)
    return own
