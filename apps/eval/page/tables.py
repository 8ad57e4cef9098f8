"""The heat tables of one protocol in report.html: models by category, models by turn."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from apps.eval.figures.report import ProtocolFigures


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatTable:
    """Values of models (rows) by category or turn (columns); a missing one was not judged."""

    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, float]]
    scale: tuple[float, float] | None
    """Lowest and highest score; None of shares."""


def heat_tables(result: ProtocolFigures) -> list[HeatTable]:
    return [table for table in (_turns(result), _categories(result)) if table]


def _turns(result: ProtocolFigures) -> HeatTable | None:
    """Mean score turn by turn, where there is more than one."""
    rows = {name: row.per_turn for name, row in (result.scores or {}).items()}
    turns = sorted({turn for row in rows.values() for turn in row}, key=int)
    if len(turns) < 2:
        return None
    return HeatTable(
        title="Mean score by turn",
        columns=tuple(f"turn {turn}" for turn in turns),
        rows={n: {f"turn {t}": mean for t, mean in row.items()} for n, row in rows.items()},
        scale=result.scale,
    )


def _categories(result: ProtocolFigures) -> HeatTable | None:
    rows: Mapping[str, Mapping[str, float]] = _shares(result)
    if result.scores is not None:
        rows = {name: row.per_category for name, row in result.scores.items()}
    if not rows:
        return None
    if result.rated:
        places = {row.model: place for place, row in enumerate(result.rated)}
        # Last one whose contests all miss a judgment: it has scores and no rating.
        rows = {n: rows[n] for n in sorted(rows, key=lambda n: places.get(n, len(places)))}
    what = "Mean score" if result.scores is not None else "Share of wins, ties counted half,"
    return HeatTable(
        title=f"{what} by category",
        columns=tuple(dict.fromkeys(c for row in rows.values() for c in row)),
        rows=rows,
        scale=result.scale,
    )


def _shares(result: ProtocolFigures) -> dict[str, dict[str, float]]:
    """{model: {category: mean share of wins against the others}}"""
    shares: dict[str, dict[str, list[float]]] = {}
    for row in result.compared.pairs if result.compared else ():
        for category, counts in row.per_category.items():
            for model, won in zip(row.models, (counts.win, counts.loss), strict=True):
                of_model = shares.setdefault(model, defaultdict(list))
                of_model[category].append((won + 0.5 * counts.tie) / counts.n)
    return {
        model: {category: sum(mine) / len(mine) for category, mine in row.items()}
        for model, row in shares.items()
    }
