"""Which two models meet next: drawn by their weights and by how much the battle would tell."""

import math
import random
from collections.abc import Mapping, Sequence

from apps.serve.page.store.refusal import Refusal

Pair = tuple[str, str]


def draw_pair(
    models: Sequence[str],
    weights: Mapping[str, float],
    num_battles: Mapping[Pair, int],
    draw: random.Random,
) -> Pair:
    """Two different models, on random sides. Raises Refusal when there are not two.

    The standard error of a win rate falls as 1/sqrt(n); a pair's chance is what its next battle
    takes off that: 1/sqrt(n+1) - 1/sqrt(n+2), times both models' weights.
    """
    ready = [name for name in models if weights.get(name, 1.0) > 0]
    pairs = [(a, b) for i, a in enumerate(ready) for b in ready[i + 1 :]]
    if not pairs:
        raise Refusal("A battle needs two models, and there are not two up right now.")
    chances = [
        weights.get(a, 1.0) * weights.get(b, 1.0) * _told(_battles_of(num_battles, a, b))
        for a, b in pairs
    ]
    left, right = draw.choices(pairs, chances)[0]
    return (left, right) if draw.random() < 0.5 else (right, left)


def _battles_of(num_battles: Mapping[Pair, int], a: str, b: str) -> int:
    return num_battles.get((a, b), 0) + num_battles.get((b, a), 0)


def _told(num_battles: int) -> float:
    return 1 / math.sqrt(num_battles + 1) - 1 / math.sqrt(num_battles + 2)
