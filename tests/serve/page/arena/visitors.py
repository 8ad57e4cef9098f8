"""A simulator of honest and rigging visitors."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from apps.common import ratings
from apps.serve.page.arena.rules import RuledVote

MODELS = tuple(f"model-{i}" for i in range(8))


@dataclass
class World:
    """Models of known strength, and everything that visitors did."""

    seed: int
    spread_elo: float = 60.0
    votes: list[RuledVote] = field(default_factory=list)
    drawn: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.draw = np.random.default_rng(self.seed)
        gaps = self.draw.normal(0, self.spread_elo / ratings.ELO_PER_LOG_ODDS, len(MODELS))
        self.strength = dict(zip(MODELS, gaps, strict=True))

    def honest(self, num_visitors: int, mean_votes: float = 10) -> None:
        """Each votes as the strengths have it, ties and all, on four in five of its battles."""
        for i in range(num_visitors):
            for _ in range(self.draw.geometric(1 / mean_votes)):
                left, right = self._pair(f"honest-{i}")
                if self.draw.random() < 0.2:
                    continue
                self._vote(f"honest-{i}", f"net-{i}", left, right, self._fair(left, right))

    def rigging(self, model: str, num_sessions: int, num_votes: int, picks: bool) -> None:
        """Recognises its model 95 times in 100 and votes for it; else votes as the honest do.

        One that picks passes every battle by that does not seem to have its model.
        """
        for i in range(num_sessions):
            cast = 0
            while cast < num_votes // num_sessions:
                left, right = self._pair(f"rig-{i}")
                sees = model in (left, right) and self.draw.random() < 0.95
                if picks and not sees:
                    continue
                outcome = float(left == model) if sees else self._fair(left, right)
                self._vote(f"rig-{i}", f"rig-net-{i}", left, right, outcome)
                cast += 1

    def _pair(self, visitor: str) -> tuple[str, str]:
        left, right = self.draw.choice(len(MODELS), 2, replace=False)
        pair = (MODELS[left], MODELS[right])
        self.drawn[visitor].append(pair)
        return pair

    def _fair(self, left: str, right: str) -> float:
        if self.draw.random() < 0.25:
            return 0.5
        gap = self.strength[left] - self.strength[right]
        return float(self.draw.random() < 1 / (1 + np.exp(-gap / 0.75)))

    def _vote(self, visitor: str, address: str, left: str, right: str, outcome: float) -> None:
        self.votes.append(
            RuledVote(
                battle_id=str(len(self.votes)),
                visitor_id=visitor,
                address=address,
                created_s=60.0 * len(self.votes),
                left=left,
                right=right,
                outcome=outcome,
            )
        )


def board(votes: list[RuledVote]) -> dict[str, ratings.Rating]:
    records = [(v.left, v.right, v.outcome, v.visitor_id) for v in votes]
    rows = ratings.leaderboard(ratings.Battles.of(records), num_resamples=100)
    return {row.model: row for row in rows}
