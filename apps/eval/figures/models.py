"""How the models stand: their scores, pairs, ratings and ranks.

A share lies in 0..1, a percentage in 0..100. `low` and `high` are the ends of a 95 % interval.
Of `total` that were planned, `n` were judged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from apps.eval.figures.as_json import MERGED, OMITTED


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRow:
    """Scores of one model, from 1 to 10."""

    n: int
    total: int
    mean: float | None
    sum: float
    low: float | None
    high: float | None
    per_category: Mapping[str, float]
    """{category: mean}"""
    per_turn: Mapping[str, float]
    """{turn, from 1: mean}"""


@dataclass(frozen=True, kw_only=True, slots=True)
class RelativeQuality:
    """Every model's score as a percentage of the baseline's."""

    baseline: str
    percent: Mapping[str, float]
    through: Mapping[str, str]
    """{model: the model through which it is compared with the baseline}"""


@dataclass(frozen=True, kw_only=True, slots=True)
class WinTieLoss:
    """Questions that the first of two models wins, ties and loses."""

    win: int
    tie: int
    loss: int

    @property
    def n(self) -> int:
        return self.win + self.tie + self.loss


@dataclass(frozen=True, kw_only=True, slots=True)
class Consistency:
    """Contests judged alike in both orders."""

    consistent: int
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WinRate:
    """Share of wins, ties counted half."""

    win_rate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreTotals:
    """Sums of both models' scores in their pair, and their ratio."""

    first: float
    second: float
    ratio: float | None
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PairRow:
    """Two models on the questions that both were judged on."""

    models: tuple[str, str]
    n: int
    total: int
    counts: WinTieLoss = field(metadata=MERGED)
    per_category: Mapping[str, WinTieLoss]
    consistency: Consistency | None
    rate: WinRate | None = field(metadata=MERGED)
    score_totals: ScoreTotals | None = field(metadata=OMITTED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference:
    """Whom the judge prefers of two."""

    preferred: str
    over: str
    win: int
    tie: int
    loss: int
    n: int
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RatingRow:
    """One line of the ratings, on the Elo scale."""

    model: str
    rating: float
    low: float
    high: float
    num_battles: int
    win_rate: float
    rank: int
    elo: float
    """updated battle by battle, so it depends on their order"""


@dataclass(frozen=True, kw_only=True, slots=True)
class RatingTable:
    """Ratings of all models, best first, fitted to every contest."""

    models: tuple[RatingRow, ...]
    is_connected: bool
    """whether wins lead from every model to every other; else a prior keeps the ratings finite"""
    win_rates: Mapping[str, Mapping[str, float]]
    """{model: {opponent: share of wins, ties counted half}}"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Two models on the questions of both: share of wins less 0.5, or difference of mean scores."""

    difference: float
    low: float
    high: float
    n: int
    questions_needed: int | None
    """for a 95 % interval that leaves 0 four times in five, at this difference"""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankStep:
    """Two neighbours of a ranking, and what would turn their order."""

    above: str
    below: str
    between: Difference | None = field(metadata=MERGED)
    """None where the two never met"""
    judgments: int
    """contests, or questions with scores of both, that the order rests on"""
    dropped: int | None
    """this many of them left out turn the order; None: none do"""
    flipped: int | None
    """this many of them decided the other way turn it"""
    questions: tuple[str, ...]
    """the first of those whose leaving out turns it"""
