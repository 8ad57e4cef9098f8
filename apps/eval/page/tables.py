"""The tables of one protocol in report.html: pairs, win rates, categories, length control."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from apps.eval.page import charts
from apps.eval.page.parts import dot, of


def pairs(result: Mapping[str, Any]) -> str:
    rows = result.get("pairs")
    if not rows:
        return ""
    has_totals = any("score_totals" in row for row in rows)
    body = []
    for row in rows:
        first, second = (escape(model) for model in row["models"])
        bar = charts.split_bar(row["win"], row["tie"], row["loss"])
        rate = "&ndash;"
        if row.get("win_rate") is not None:
            rate = f"{100 * row['win_rate']:.1f} %"
            rate += (
                f"<br><span class=muted>{100 * row['low']:.0f}&ndash;{100 * row['high']:.0f}</span>"
            )
        totals = ""
        if has_totals:
            totals = f"<td class=n>{_totals(row.get('score_totals'))}</td>"
        body.append(
            f"<tr><td class=name>{first}<br><span class=muted>vs {second}</span></td>"
            f"<td class=bar>{bar}</td><td class=n>{rate}</td>{totals}"
            f"<td class=n>{of(row)}</td></tr>"
        )
    head = "<th class=n>score totals, ratio</th>" if has_totals else ""
    return (
        '<div class="panel"><h3>Pair by pair: wins, ties and losses of the first</h3><table><tr>'
        f"<th></th><th></th><th class=n>win rate</th>{head}<th class=n>questions</th></tr>"
        f"{''.join(body)}</table></div>"
    )


def _totals(sums: Mapping[str, Any] | None) -> str:
    """Both totals, and below them their ratio with its interval."""
    if not sums:
        return "&ndash;"
    shown = f"{sums['first']:.1f} : {sums['second']:.1f}"
    if sums["ratio"] is None:
        return shown
    interval = f"{100 * sums['low']:.0f}&ndash;{100 * sums['high']:.0f}"
    return f"{shown}<br><span class=muted>{100 * sums['ratio']:.1f} %, {interval}</span>"


def matrix(result: Mapping[str, Any], models: Sequence[str]) -> str:
    rates = result.get("ratings", {}).get("win_rates")
    if not rates or len(rates) < 3:
        return ""
    order = [row["model"] for row in result["ratings"]["models"]]
    head = "".join(f"<th class=c>{escape(name)}</th>" for name in order)
    rows = "".join(
        f"<tr><td class=name>{dot(models, first)}{escape(first)}</td>"
        + "".join(_heat(rates[first].get(second), 100, " %") for second in order)
        + "</tr>"
        for first in order
    )
    return (
        '<div class="panel"><h3>Win rate of the row against the column</h3>'
        f'<table class="heat"><tr><th></th>{head}</tr>{rows}</table></div>'
    )


def _heat(value: float | None, factor: float, suffix: str, middle: float = 0.5) -> str:
    if value is None:
        return '<td class="cell muted">·</td>'
    shade = "--win" if value >= middle else "--loss"
    strength = round(min(1.0, abs(value - middle) / max(middle, 1 - middle)) * 62)
    return (
        f'<td class="cell" style="background:color-mix(in srgb, var({shade}) {strength}%, '
        f'var(--card))">{value * factor:.0f}{suffix}</td>'
    )


def categories(result: Mapping[str, Any], models: Sequence[str]) -> str:
    table = _category_table(result)
    if not table:
        return ""
    categories = list(dict.fromkeys(c for row in table.values() for c in row))
    if "ratings" in result:
        order = [row["model"] for row in result["ratings"]["models"]]
        table = {name: table[name] for name in sorted(table, key=order.index)}
    is_scores = "scores" in result
    head = "".join(f"<th class=c>{escape(category)}</th>" for category in categories)
    rows = "".join(
        f"<tr><td class=name>{dot(models, name)}{escape(name)}</td>"
        + "".join(
            _heat(
                None if c not in row else row[c] / (10 if is_scores else 1),
                10 if is_scores else 100,
                "" if is_scores else " %",
            )
            if not is_scores or c not in row
            else _score_cell(row[c])
            for c in categories
        )
        + "</tr>"
        for name, row in table.items()
    )
    what = "Mean score" if is_scores else "Share of wins, ties counted half,"
    return (
        f'<div class="panel"><h3>{what} by category</h3><table class="heat"><tr><th></th>'
        f"{head}</tr>{rows}"
        "</table></div>"
    )


def _score_cell(value: float) -> str:
    # Squared, because good models differ in the upper third of the scale only.
    strength = round(70 * (max(0.0, value - 1) / 9) ** 2)
    return (
        f'<td class="cell" style="background:color-mix(in srgb, var(--win) {strength}%, '
        f'var(--card))">{value:.1f}</td>'
    )


def _category_table(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    if "scores" in result:
        return {name: row["per_category"] for name, row in result["scores"].items()}
    shares: dict[str, dict[str, list[float]]] = {}
    for row in result.get("pairs", []):
        for category, counts in row["per_category"].items():
            for place, model in enumerate(row["models"]):
                won = counts["loss" if place else "win"] + 0.5 * counts["tie"]
                total = sum(counts.values())
                shares.setdefault(model, {}).setdefault(category, []).append(won / total)
    return {
        model: {category: sum(found) / len(found) for category, found in row.items()}
        for model, row in shares.items()
    }


def turns(result: Mapping[str, Any], models: Sequence[str]) -> str:
    """Mean score turn by turn, where there is more than one."""
    found = {name: row["per_turn"] for name, row in result.get("scores", {}).items()}
    numbers = sorted({int(turn) for row in found.values() for turn in row})
    if len(numbers) < 2:
        return ""
    head = "".join(f"<th class=c>turn {number}</th>" for number in numbers)
    rows = "".join(
        f"<tr><td class=name>{dot(models, name)}{escape(name)}</td>"
        + "".join(
            _score_cell(row[str(n)]) if str(n) in row else _heat(None, 1, "") for n in numbers
        )
        + "</tr>"
        for name, row in found.items()
    )
    return (
        f'<div class="panel"><h3>Mean score by turn</h3><table class="heat"><tr><th></th>'
        f"{head}</tr>{rows}"
        "</table></div>"
    )


def length_control(result: Mapping[str, Any]) -> str:
    found = result.get("length_control")
    if not found:
        return ""
    rows = "".join(
        f"<tr><td>{escape(row['models'][0])} vs {escape(row['models'][1])}</td>"
        f"<td class=n>{100 * row['raw']:.1f} %</td><td class=n>{100 * row['controlled']:.1f} %</td>"
        f"<td>{'few wins: fragile' if row['is_fragile'] else ''}</td></tr>"
        for row in found["pairs"]
    )
    return (
        '<div class="panel"><h3>With the length of the answers held equal</h3><table><tr><th></th>'
        f"<th class=n>raw</th><th class=n>controlled</th><th></th></tr>{rows}</table></div>"
    )
