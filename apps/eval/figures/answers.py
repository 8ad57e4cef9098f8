"""What the answers show without a judge: their lengths, cuts and accuracy.

A share lies in 0..1. `low` and `high` are the ends of a 95 % interval.
"""

from collections.abc import Mapping
from dataclasses import dataclass


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
