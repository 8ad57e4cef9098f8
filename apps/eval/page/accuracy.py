"""The held-out accuracy of report.html: a chart, and a table by category."""

from collections.abc import Mapping
from dataclasses import dataclass

from apps.eval.figures.answers import Accuracy, CategoryAccuracy
from apps.eval.figures.report import Figures


@dataclass(frozen=True, kw_only=True, slots=True)
class AccuracyTable:
    models: tuple[str, ...]
    percents: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    """percent"""
    rows: Mapping[str, tuple[Accuracy | CategoryAccuracy | None, ...]]
    """{category: one count a model}, all questions together first"""


def accuracy_table(figures: Figures) -> AccuracyTable | None:
    """None without questions that have a reference to check."""
    accuracies = {name: row.accuracy for name, row in figures.models.items() if row.accuracy}
    if not accuracies:
        return None
    categories = dict.fromkeys(c for row in accuracies.values() for c in row.per_category)
    return AccuracyTable(
        models=tuple(accuracies),
        percents={name: 100 * row.rate for name, row in accuracies.items()},
        intervals={name: (100 * row.low, 100 * row.high) for name, row in accuracies.items()},
        rows={
            "all": tuple(accuracies.values()),
            **{
                c: tuple(row.per_category.get(c) for row in accuracies.values()) for c in categories
            },
        },
    )
