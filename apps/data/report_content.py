"""What the report of a clean folder shows, as it is collected and drawn."""

from typing import NotRequired, TypedDict


class UnitCounts(TypedDict):
    """ledger.json of one unit (records, messages or bytes): where each went."""

    input: int
    kept: int
    trimmed: dict[str, int]
    dropped: dict[str, int]
    quarantined: dict[str, int]
    joined: NotRequired[int]
    framing: NotRequired[int]


class Ledger(TypedDict):
    """ledger.json, as far as it is shown; each dict counts by name."""

    records: UnitCounts
    messages: UnitCounts
    bytes: UnitCounts
    forms: dict[str, int]
    repairs: dict[str, int]
    layouts: NotRequired[dict[str, int]]
    ignored: NotRequired[dict[str, int]]
    continuations: NotRequired[int]


class Totals(TypedDict):
    """Counts of records."""

    records: int
    kept: int
    dropped: int
    quarantined: int


class FunnelStep(TypedDict):
    """A rule that dropped some, and what it left."""

    step: str
    left: int
    gone: int


class SampleMessage(TypedDict):
    role: str
    content: str


class SampleLine(TypedDict):
    """A record of a rule's drops."""

    id: str
    detail: str
    raw: str
    messages: list[SampleMessage]


Histogram = list[tuple[str, int]]
"""(label, count)"""


class Shapes(TypedDict):
    """What was kept, by conversation."""

    rounds: Histogram
    chars: Histogram
    quality: Histogram
    languages: Histogram


class Report(Shapes):
    folder: str
    inputs: dict[str, object]
    created: str
    git_commit: str
    totals: Totals
    ledger: Ledger
    funnel: list[FunnelStep]
    samples: dict[str, list[SampleLine]]
    """by rule"""
    personal_data: NotRequired[object]
    """precision and recall of each entity"""
    pack: NotRequired[object]
    """pack.json"""
