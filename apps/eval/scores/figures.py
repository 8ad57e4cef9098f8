"""The figures of an evaluation: what `scores` computes, the page draws and report.json holds.

Every figure carries its n of N. A share lies in 0..1, a percentage in 0..100; `low` and `high` are
the ends of a 95 % interval.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from math import isnan
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

OMITTED = {"absent": "omit"}
"""Metadata of a field that report.json leaves out where it is None."""
MERGED = {"absent": "omit", "is_merged": True}
"""Metadata of a field whose own fields stand in its place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A part of n with its interval."""

    share: float
    n: int
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """What came of the planned judgments."""

    ok: int
    unparsed: int
    refused: int
    truncated: int
    missing: int
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedQuestions:
    judged: int
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryAccuracy:
    correct: int
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """Answers that agree with the reference; no judge is involved."""

    correct: int
    total: int
    rate: float
    low: float
    high: float
    per_category: Mapping[str, CategoryAccuracy]


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
    per_turn: Mapping[str, float]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class RatingTable:
    models: tuple[RatingRow, ...]
    is_connected: bool
    win_rates: Mapping[str, Mapping[str, float]]


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
class SelfCheck:
    """Verdicts on identical answers."""

    first: int
    tie: int
    second: int
    n: int
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Bias:
    """What else the verdicts go with; None where nothing tells."""

    first_shown_wins: Share | None
    longer_wins: Share | None
    order_consistent: Share | None
    own_family_wins: Share | None
    self_check: SelfCheck | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PairFigures:
    """The figures of protocols that compare two answers."""

    pairs: tuple[PairRow, ...]
    ratings: RatingTable
    preference: Preference | None
    bias: Bias


@dataclass(frozen=True, kw_only=True, slots=True)
class RelativeQuality:
    """Every model's score as a percentage of the baseline's."""

    baseline: str
    percent: Mapping[str, float]
    through: Mapping[str, str]
    """{model: the model through which it is compared with the baseline}"""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgePair:
    """Two judges on what both have judged."""

    judges: tuple[str, str]
    kappa: float
    agreement: float
    n: int


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeAgreement:
    pairs: tuple[JudgePair, ...]
    krippendorff_alpha: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class HumanAgreement:
    """The judge's verdicts beside people's, with ties and among decisions only."""

    n: int
    agreement: float
    kappa: float
    decided_n: int
    decided_agreement: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrectedPair:
    """A pair's win rate as people would give it, from their verdicts on some of the questions."""

    models: tuple[str, str]
    human_n: int
    judged_n: int
    judge_weight: float
    """0: the judge tells nothing of people; 1: as much as it can"""
    judge_win_rate: float
    corrected: WinRate
    people_alone: WinRate


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """The judge held against people."""

    agreement: HumanAgreement
    pairs: tuple[CorrectedPair, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """Canaries that two runs of a judge share."""

    n: int
    flipped: int
    mean_shift: float
    has_drifted: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Canaries:
    """Fixed pairs with a known winner that were judged right."""

    right: int
    n: int
    total: int
    drift: Drift | None


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeCheck:
    """What speaks for and against one judge."""

    bias: Bias | None
    canaries: Canaries | None
    doubts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlledPair:
    """A win rate as it is and, with its interval, with the style of the answers held equal."""

    models: tuple[str, str]
    raw: float
    controlled: float
    low: float
    high: float
    n: int
    is_fragile: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleEffect:
    """Log-odds that the judge gives to an answer with more of a style."""

    style: str
    log_odds: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleControl:
    effects: tuple[StyleEffect, ...]
    pairs: tuple[ControlledPair, ...]
    n: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Of two models on the questions that both were judged on: share of wins less .5, or score."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeVote:
    judge: str
    weight: float
    """share of the vote that makes the common error smallest"""
    usd_per_1000: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Votes:
    """What several judges are worth together."""

    judges: tuple[JudgeVote, ...]
    contests: int
    effective: float
    """independent judges that would err as little as these"""
    effective_weighted: float
    usd_per_1000_effective: float
    is_measured_by_people: bool
    """errors against people; else only a lower bound"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelChange:
    """A model's mean in two runs, on the questions of both; the interval is the change's."""

    before: float
    now: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnedQuestion:
    question_id: str
    models: tuple[str, ...]
    before: float
    now: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunComparison:
    """This run beside an earlier one."""

    n: int
    only_now: int
    only_before: int
    judges_now: tuple[str, ...]
    judges_before: tuple[str, ...]
    models: Mapping[str, ModelChange]
    num_turned: int
    turned: tuple[TurnedQuestion, ...]
    """the largest changes first"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProtocolFigures:
    """All figures of one protocol's judgments."""

    judges: tuple[str, ...]
    judge_labels: tuple[str, ...]
    """The judges as the page names them."""
    judgments: Coverage
    questions: JudgedQuestions
    usd: float
    scores: Mapping[str, ScoreRow] | None = field(metadata=OMITTED)
    compared: PairFigures | None = field(metadata=MERGED)
    relative_quality: RelativeQuality | None = field(metadata=OMITTED)
    agreement: JudgeAgreement | None
    canaries: Canaries | None
    by_judge: Mapping[str, JudgeCheck]
    style_control: StyleControl | None = field(metadata=OMITTED)
    steps: tuple[RankStep, ...]
    """between every two neighbours, best first"""
    votes: Votes | None = field(metadata=OMITTED)
    comparison: RunComparison | None = field(metadata=OMITTED)
    calibration: Calibration | None = field(metadata=OMITTED)
    """The judge held against people, where their verdicts are given."""

    @property
    def scored(self) -> dict[str, ScoreRow]:
        """The models with a mean."""
        return {name: row for name, row in (self.scores or {}).items() if row.mean is not None}

    @property
    def rated(self) -> tuple[RatingRow, ...]:
        """The models with a rating, best first."""
        return self.compared.ratings.models if self.compared else ()


@dataclass(frozen=True, kw_only=True, slots=True)
class CostRow:
    """What one judge's calls cost, and how fast they came."""

    judge: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    usd: float
    estimated_calls: int
    """Calls whose endpoint gave no count of tokens that can be true: at the most they can cost."""
    usd_per_1000_calls: float
    latency_p50_s: float | None
    latency_p95_s: float | None
    busiest_minute_calls: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRow:
    """One contestant's answers, before any judge has seen them."""

    answers: int
    endpoint_models: tuple[str, ...]
    mean_answer_chars: float
    cut_answers: int
    """Answers that were cut by their limit of tokens."""
    accuracy: Accuracy | None
    suspicious: Mapping[str, tuple[str, ...]]
    """{question_id: what is suspicious}"""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionCounts:
    total: int
    per_category: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Everything that the page shows but the texts."""

    title: str
    created: str
    is_offline_judge_used: bool
    usd: float
    costs: tuple[CostRow, ...]
    questions: QuestionCounts
    models: Mapping[str, ModelRow]
    protocols: Mapping[str, ProtocolFigures]
    reference_tables: tuple[Mapping[str, object], ...] | None
    contamination: Mapping[str, object] | None
    """contamination.json as it is."""
    manifest: Mapping[str, object]
    """What made these figures, from the records beside the judgments."""


def to_json_object(value: "DataclassInstance") -> dict[str, object]:
    """The same of one record."""
    record: dict[str, object] = {}
    for part in fields(value):
        held = getattr(value, part.name)
        if held is None and "absent" in part.metadata:
            continue
        if "is_merged" in part.metadata:
            record |= to_json_object(cast("DataclassInstance", held))
        else:
            record[part.name] = to_json(held)
    return record


def to_json(value: object) -> object:
    """Plain JSON of figures: fields by name, tuples as lists, no number as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_json_object(value)
    if isinstance(value, Mapping):
        return {key: to_json(held) for key, held in cast(Mapping[str, object], value).items()}
    if isinstance(value, (tuple, list)):
        return [to_json(held) for held in cast(tuple[object, ...], value)]
    return None if isinstance(value, float) and isnan(value) else value
