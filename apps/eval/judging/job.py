"""A run of judge calls as values: what is to be done, under which limits, and what came of it."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from apps.eval.calls.client import Endpoint
from apps.eval.calls.outage import EndpointLostError
from apps.eval.calls.rate_gate import Limits
from apps.eval.judging.call import Call
from apps.eval.judging.prices import Price

REJECTIONS_TO_STOP = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Persistence:
    """How hard a chunk tries."""

    max_attempts: int = 10
    max_asks: int = 4
    width: int = 32
    """Calls of this chunk and of one judge that may wait, be in flight or on their way to disk."""
    first_backoff_s: float = 1.0
    max_backoff_s: float = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """All calls of a run and the limits they share."""

    calls: tuple[Call, ...]
    directory: str
    endpoints: Mapping[str, tuple[Endpoint, ...]]
    """{judge: the endpoints that serve it}"""
    limits: Mapping[str, tuple[Limits, ...]]
    """{judge: those of its endpoints}"""
    prices: Mapping[str, Price | None]
    persistence: Persistence
    num_tasks: int
    max_usd: float | None
    proven: frozenset[str] = frozenset()
    """judges of whom a verdict has been read"""


@dataclass(slots=True)
class Tally:
    """What became of a chunk."""

    stored: int = 0
    unreadable: int = 0
    """judgments that stay without a verdict"""
    estimated: int = 0
    """responses without a count of tokens that can be true"""
    failed: int = 0
    """calls left for the next run"""
    rejected: Counter[str] = field(default_factory=Counter[str])
    """by judge: refused for what they held, or answered with something else than a reply"""
    answered: set[str] = field(default_factory=set[str])
    """judges that replied"""
    lost_in_row: Counter[str] = field(default_factory=Counter[str])
    """by judge: broken off, or something else than a reply, since its last reply"""
    paid_in_vain: int = 0
    """tries that may have been billed and brought no reply"""
    stopped: dict[str, str] = field(default_factory=dict[str, str])
    """by judge: the sentence of the budget that has no room for its next call"""
    lost: dict[str, EndpointLostError] = field(default_factory=dict[str, EndpointLostError])
    """by judge: why it is asked nothing more"""
    last_error: str | None = None
    learned: set[str] = field(default_factory=set[str])
    """what endpoints taught about their parameters, in sentences"""

    def is_refused(self, judge: str) -> bool:
        """Whether a judge has not replied, and what came back says that it never will.

        So many rejected requests mean that the request itself is wrong, not one answer; so many
        successes without a reply, that something else than a model answers, at full price.
        """
        return self.rejected[judge] >= REJECTIONS_TO_STOP and judge not in self.answered

    def count_reply(self, judge: str) -> None:
        """A response was stored."""
        self.stored += 1
        self.answered.add(judge)
        self.lost_in_row[judge] = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """A run's end."""

    tally: Tally
    spent_usd: float
    """US dollars of all runs of the folder"""
    gate: dict[str, float]
    lost_endpoints: Mapping[str, Mapping[int, str]] = field(
        default_factory=dict[str, Mapping[int, str]]
    )
    """by judge: why its endpoints got no more calls, by number"""


OnProgress = Callable[[int, float, dict[str, float]], None]
"""(responses stored in this run, US dollars spent in all runs, the gate's state)"""
