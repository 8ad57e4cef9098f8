"""An evaluation's contests, dealt out in rounds: which are in play, and which come next."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from apps.eval.adaptive import information
from apps.eval.judging.call import Call, digest
from apps.eval.judging.plan import Plan

Pair = tuple[str, str]
Result = tuple[str, str, float]
"""two models and the share of the win that the first takes: 1, 0.5 or 0"""
# So many rounds judge all there is; fewer, larger ones learn less from each other.
ROUNDS = 32


class Rounds:
    """The contests of a plan by pair; a contest is all calls about one question and two models."""

    def __init__(self, plan: Plan, known: Iterable[str]) -> None:
        """`known` are the slots that have a response: their contests are in play already."""
        self._plan = plan
        self.models = sorted({name for call in _contests(plan) for name in call.models})
        self._left: dict[Pair, list[list[Call]]] = {}
        self._in_play: list[Call] = [call for call in plan.calls if call.kind != "contest"]
        slots = set(known)
        for pair, contests in self._by_pair().items():
            begun = [calls for calls in contests if any(call.slot in slots for call in calls)]
            self._in_play += [call for calls in begun for call in calls]
            self._left[pair] = [calls for calls in contests if calls not in begun]

    @property
    def plan(self) -> Plan:
        """Of what is in play."""
        return replace(self._plan, calls=tuple(self._in_play), unjudged=())

    @property
    def num_left(self) -> int:
        return sum(map(len, self._left.values()))

    def begin_next(self, results: Sequence[Result], confidence: float) -> bool:
        """Puts the next round into play; False where the order is settled or nothing is left."""
        size, index = len(self.models), {name: i for i, name in enumerate(self.models)}
        wins_MM, left_MM = np.zeros((size, size)), np.zeros((size, size))
        for first, second, share in results:
            wins_MM[index[first], index[second]] += share
            wins_MM[index[second], index[first]] += 1.0 - share
        for (first, second), contests in self._left.items():
            left_MM[index[first], index[second]] = left_MM[index[second], index[first]] = len(
                contests
            )
        standings = information.fit(wins_MM)
        games_MM = wins_MM + wins_MM.T
        if information.is_settled(standings, games_MM, left_MM, confidence):
            return False
        picked = information.next_contests(standings, games_MM, left_MM, self._round_size())
        for first, second in picked:
            names = (self.models[first], self.models[second])
            pair = names if names in self._left else (names[1], names[0])
            self._in_play += self._left[pair].pop(0)
        return bool(picked)

    def _round_size(self) -> int:
        return max(len(self.models), len(_contests(self._plan)) // ROUNDS // 2)

    def _by_pair(self) -> dict[Pair, list[list[Call]]]:
        """Every pair's contests, in an order that mixes the categories and never changes."""
        grouped: dict[tuple[Pair, str], list[Call]] = {}
        for call in _contests(self._plan):
            pair = (call.models[0], call.models[1])
            grouped.setdefault((pair, call.question_id), []).append(call)
        contests: dict[Pair, list[list[Call]]] = {}
        for pair, question_id in sorted(grouped, key=lambda one: digest(*one)):
            contests.setdefault(pair, []).append(grouped[pair, question_id])
        return contests


def _contests(plan: Plan) -> list[Call]:
    return [call for call in plan.calls if call.kind == "contest"]
