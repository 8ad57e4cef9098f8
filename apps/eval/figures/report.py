"""All figures of an evaluation: computed by `scores`, drawn by the page, kept in report.json."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from apps.eval.figures.answers import ModelRow
from apps.eval.figures.as_json import MERGED, OMITTED
from apps.eval.figures.comparison import RunComparison
from apps.eval.figures.judges import (
    Bias,
    Calibration,
    Canaries,
    CostRow,
    JudgeAgreement,
    JudgeCheck,
    StyleControl,
    UnansweredCalls,
    Votes,
)
from apps.eval.figures.models import (
    PairRow,
    Preference,
    RankStep,
    RatingRow,
    RatingTable,
    RelativeQuality,
    ScoreRow,
)


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
class PairFigures:
    """The figures of protocols that compare two answers."""

    pairs: tuple[PairRow, ...]
    ratings: RatingTable
    preference: Preference | None
    bias: Bias


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
    scale: tuple[float, float] | None = field(metadata=OMITTED)
    """Lowest and highest score."""
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
    def highest(self) -> float:
        """The best score there can be."""
        return self.scale[1] if self.scale else 10.0

    @property
    def rated(self) -> tuple[RatingRow, ...]:
        """The models with a rating, best first."""
        return self.compared.ratings.models if self.compared else ()


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
    unanswered: UnansweredCalls
    questions: QuestionCounts
    models: Mapping[str, ModelRow]
    protocols: Mapping[str, ProtocolFigures]
    reference_tables: tuple[Mapping[str, object], ...] | None
    contamination: Mapping[str, object] | None
    """contamination.json as it is."""
    manifest: Mapping[str, object]
    """What made these figures, from the records beside the judgments."""
