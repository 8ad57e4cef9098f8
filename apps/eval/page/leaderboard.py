"""The leaderboard of report.html: every model in one row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from apps.common.page.render import amount, fixed
from apps.eval.figures.report import Figures, ProtocolFigures


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A figure and its interval, where it has one."""

    figure: str
    interval: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """What is shown of the models, in two lines, and each model's cell."""

    heads: tuple[str, str]
    cells: Mapping[str, Cell]


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaderboard:
    models: tuple[str, ...]
    """best first"""
    columns: tuple[Column, ...]


def leaderboard(figures: Figures) -> Leaderboard | None:
    """None with one model, or where no judgment tells anything."""
    standings = [
        column for name, result in figures.protocols.items() for column in _standings(name, result)
    ]
    if not standings or len(figures.models) < 2:
        return None
    first = standings[0].cells
    rest = (name for name in figures.models if name not in first)
    return Leaderboard(models=(*first, *rest), columns=(*standings, *_answer_columns(figures)))


def _standings(protocol: str, result: ProtocolFigures) -> list[Column]:
    """The columns of one protocol: the first one best first."""
    columns: list[Column] = []
    if result.rated:
        cells = {row.model: _cell(row.rating, row.low, row.high, 0) for row in result.rated}
        columns.append(Column(heads=(protocol, "rating"), cells=cells))
    elif result.scored:
        ordered = sorted(result.scored.items(), key=lambda item: -(item[1].mean or 0.0))
        cells = {name: _cell(row.mean, row.low, row.high, 2) for name, row in ordered}
        columns.append(Column(heads=(protocol, f"mean of {result.highest:g}"), cells=cells))
    if relative := result.relative_quality:
        cells = {name: Cell(figure=f"{share:.1f} %") for name, share in relative.percent.items()}
        columns.append(Column(heads=(protocol, f"of {relative.baseline}"), cells=cells))
    return columns


def _cell(value: float | None, low: float | None, high: float | None, digits: int) -> Cell:
    if value is None or low is None or high is None:
        return Cell(figure="\N{EN DASH}")
    interval = f"{fixed(low, digits)}\N{EN DASH}{fixed(high, digits)}"
    return Cell(figure=fixed(value, digits), interval=interval)


def _answer_columns(figures: Figures) -> Sequence[Column]:
    """What the answers show without a judge."""
    rows = figures.models
    accuracies = {name: row.accuracy for name, row in rows.items() if row.accuracy}
    correct = {name: Cell(figure=f"{a.correct} of {a.total}") for name, a in accuracies.items()}
    cut = {name: Cell(figure=f"{row.cut_answers} of {row.answers}") for name, row in rows.items()}
    chars = {name: Cell(figure=amount(row.mean_answer_chars)) for name, row in rows.items()}
    columns = [Column(heads=("correct", ""), cells=correct)] if correct else []
    if any(row.cut_answers for row in rows.values()):
        columns.append(Column(heads=("answers cut", "by their limit"), cells=cut))
    return [*columns, Column(heads=("characters", "an answer"), cells=chars)]
