"""What a run says of itself: a record of each step, and what the ranks tell while they train.

A record is one line of metrics.jsonl; metrics.py says what its figures mean. Imports no torch: the
command reads these in a process that never computes.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict, cast

from apps.common.errors import CriaError
from apps.common.files import storage
from apps.common.files.json_floats import from_json
from apps.common.files.schema import METRICS_NAME
from apps.train.attempts import RankFailure


class Sample(TypedDict):
    """What the model answers to a fixed prompt."""

    prompt: str
    answer: str


class StepRecord(TypedDict):
    """One optimizer step. The figures below `seconds` are there where they are known."""

    step: int
    num_steps: int
    world_size: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    supervised_tokens: int
    step_s: float
    tokens_per_s: float
    supervised_tokens_per_s: float
    data_wait_s: float
    checkpoint_s: float
    memory_gb: float
    seconds: float
    lost_s: NotRequired[float]
    usd: NotRequired[float]
    usd_to_go: NotRequired[float]
    mfu: NotRequired[float]
    mfu_packed: NotRequired[float]
    val_loss: NotRequired[float]
    skipped: NotRequired[str]
    samples: NotRequired[list[Sample]]
    sample_s: NotRequired[float]


def figures(record: StepRecord) -> Iterator[tuple[str, float]]:
    """Names and values of what can be drawn over the steps."""
    for name, value in record.items():
        if isinstance(value, int | float) and name != "step":
            yield name, value


def read_metrics(run_uri: str) -> list[StepRecord]:
    """Records of a run, one a step; a torn last line is left out."""
    uri = storage.join(run_uri, METRICS_NAME)
    if not storage.exists(uri):
        return []
    records: dict[int, StepRecord] = {}
    for line in storage.read_bytes(uri).splitlines():
        with contextlib.suppress(ValueError):  # of JSON, or of a character that was cut
            record = cast(StepRecord, from_json(json.loads(line)))
            records[record["step"]] = record
    return [records[step] for step in sorted(records)]


def spent_s(records: Sequence[StepRecord]) -> float:
    """Seconds that a run has taken so far, those of steps after its newest checkpoint too."""
    return max((record["seconds"] for record in records), default=0.0)


def lost_s(records: Sequence[StepRecord]) -> float:
    """Of those, seconds of steps that were taken again."""
    return max((record.get("lost_s", 0.0) for record in records), default=0.0)


@dataclass(frozen=True, slots=True)
class Stepped:
    """A step was taken."""

    record: StepRecord


@dataclass(frozen=True, slots=True)
class Told:
    """Something worth a line, `checkpoint.started` for example."""

    name: str
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Began:
    """A rank was placed: an attempt begins."""

    rank: int
    node: str
    """address of its machine"""


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt failed."""

    failure: RankFailure


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run ended itself; another attempt would only repeat it."""

    reason: CriaError


Event = Stepped | Told | Began | Failed | Stopped
