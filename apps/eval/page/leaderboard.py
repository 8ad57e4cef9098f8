"""The leaderboard of report.html: every model in one row."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from apps.eval.page.parts import dot


def leaderboard(figures: Mapping[str, Any], models: Sequence[str]) -> str:
    """Every model in one row: what each protocol says of it, accuracy, length of its answers."""
    columns = [
        (f"{escape(name)}<br>{what}", found)
        for name, result in figures["protocols"].items()
        for what, found in _standings(result)
    ]
    if not columns or len(models) < 2:
        return ""
    has_accuracy = any(row["accuracy"] for row in figures["models"].values())
    heads = [head for head, _ in columns]
    heads += ["correct"] if has_accuracy else []
    has_cut = any(row["cut_answers"] for row in figures["models"].values())
    heads += ["answers cut<br>by their limit"] if has_cut else []
    head = "".join(f"<th class=n>{text}</th>" for text in (*heads, "characters<br>an answer"))
    rows = []
    for name in _ranked(models, columns[0][1]):
        row, cells = figures["models"][name], []
        cells += [found.get(name, "&ndash;") for _, found in columns]
        if has_accuracy:
            right = row["accuracy"]
            cells.append(f"{right['correct']} of {right['total']}" if right else "&ndash;")
        cells += [f"{row['cut_answers']} of {row['answers']}"] if has_cut else []
        cells.append(f"{row['mean_answer_chars']:,.0f}")
        shown = "".join(f"<td class=n>{cell}</td>" for cell in cells)
        rows.append(f"<tr><td class=name>{dot(models, name)}{escape(name)}</td>{shown}</tr>")
    return (
        f'<div class="panel"><h3>Leaderboard</h3><table><tr><th>model</th>{head}</tr>'
        f"{''.join(rows)}</table></div>"
    )


def _standings(result: Mapping[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """[(what is shown, {model: figure}), ...]: the first one best first."""
    columns = []
    if rated := result.get("ratings", {}).get("models"):
        columns.append(
            ("rating", {row["model"]: _with_interval(row, "rating", 0) for row in rated})
        )
    scores = {k: v for k, v in result.get("scores", {}).items() if v["mean"] is not None}
    if scores and not rated:
        ordered = sorted(scores.items(), key=lambda item: -item[1]["mean"])
        columns.append(
            ("mean of 10", {name: _with_interval(row, "mean", 2) for name, row in ordered})
        )
    if relative := result.get("relative_quality"):
        shares = {name: f"{share:.1f} %" for name, share in relative["percent"].items()}
        columns.append((f"of {escape(relative['baseline'])}", shares))
    return columns


def _with_interval(row: Mapping[str, Any], name: str, digits: int) -> str:
    low, high = (f"{row[edge]:.{digits}f}".replace("-", "&minus;") for edge in ("low", "high"))
    return f"<b>{row[name]:.{digits}f}</b> <span class=muted>{low}&ndash;{high}</span>"


def _ranked(models: Sequence[str], first: Mapping[str, str]) -> list[str]:
    """In the first column's order; those that it does not know come last."""
    return [*first, *(name for name in models if name not in first)]
