"""This run beside an earlier one, on the questions that both share."""

from collections.abc import Mapping
from dataclasses import dataclass


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
    """A question whose verdict or score is another one now."""

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
