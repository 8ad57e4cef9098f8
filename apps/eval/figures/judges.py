"""What speaks for and against the judges: bias, agreement, canaries, calibration and cost.

A share lies in 0..1. `low` and `high` are the ends of a 95 % interval.
"""

from dataclasses import dataclass

from apps.eval.figures.models import WinRate


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A part of n with its interval."""

    share: float
    n: int
    low: float
    high: float


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
    """What else the verdicts go with; None where no judgment tells.

    A share above one half of `first_shown_wins`, `longer_wins` or `own_family_wins` is a lean.
    """

    first_shown_wins: Share | None
    longer_wins: Share | None
    order_consistent: Share | None
    own_family_wins: Share | None
    self_check: SelfCheck | None


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
    correlation: float | None
    """of the judge's outcomes with people's, where both judged; None where one never varies"""
    width_share: float
    """width of the corrected interval, as a share of that of people alone"""
    least_width_share: float
    """what no method can go below at this correlation and these numbers of questions"""
    judge_win_rate: float
    corrected: WinRate
    people_alone: WinRate


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """The judge held against people."""

    agreement: HumanAgreement
    pairs: tuple[CorrectedPair, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleEffect:
    """Log-odds that the judge gives to an answer with more of a style."""

    style: str
    log_odds: float
    low: float
    high: float


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
class StyleControl:
    effects: tuple[StyleEffect, ...]
    pairs: tuple[ControlledPair, ...]
    n: int


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
class UnansweredCalls:
    """Calls that brought no reply and may have been billed, of all runs: killed or broken off."""

    calls: int
    usd: float
    """the most that they can have cost"""
