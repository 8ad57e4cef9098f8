"""The published tables of the Vicuna work, as a section of report.html."""

from collections.abc import Mapping
from html import escape
from typing import Any


def published_tables(figures: Mapping[str, Any]) -> str:
    """The published tables of the Vicuna work, to be read beside one's own run."""
    found = figures.get("reference_tables")
    if not found:
        return ""
    shown = "".join(_reference(table) for table in found)
    return (
        '<h2 id="reference">Published tables</h2><p class="lead">Scores that GPT-4 gave '
        "in 2023 to the answers of that time: a landmark, not a contestant of this run.</p>"
        f'<div class="two">{shown}</div>'
    )


def _reference(table: Mapping[str, Any]) -> str:
    has_wins = any("win" in pair for pair in table["pairs"].values())
    rows = "".join(
        f"<tr><td class=name>{escape(name)}</td><td class=n>{pair['baseline_total']:.1f}</td>"
        f"<td class=n>{pair['vicuna_total']:.1f}</td>"
        + (f"<td class=n>{pair['win']} / {pair['tie']} / {pair['loss']}</td>" if has_wins else "")
        + "</tr>"
        for name, pair in table["pairs"].items()
    )
    wins = "<th class=n>wins / ties / losses</th>" if has_wins else ""
    note = ""
    if "better_or_equal_to_chatgpt" in table:
        note = (
            f"Better than or equal to ChatGPT on {100 * table['better_or_equal_to_chatgpt']:.1f} % "
            f"of the questions; {100 * table['relative_quality']:.0f} % of its total score."
        )
    return (
        f'<div class="panel"><h3>{escape(table["name"])}</h3><table><tr><th></th>'
        f"<th class=n>its total</th><th class=n>Vicuna's</th>{wins}</tr>{rows}</table>"
        f'<p class="note">{note}</p></div>'
    )
