"""The sections of report.html: each a function from figures to HTML."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from apps.eval import charts

_ABOUT = {
    "vicuna-blog": "Both answers in one order, two scores from 1 to 10 (the Vicuna blog's method).",
    "pairwise-swap": "Both answers in both orders; two orders that disagree are a tie.",
    "single": "Each answer alone, from 1 to 10.",
    "mt-bench": "Each answer alone, turn by turn, from 1 to 10, with references where known.",
    "verdict": "Both answers in both orders, five labels from much better to much worse.",
}


def cards(figures: Mapping[str, Any]) -> str:
    """The few numbers that one wants first."""
    made = []
    for name, result in figures["protocols"].items():
        if result.get("preference"):
            found = result["preference"]
            told = f"preferred over {found['over']}: {found['win']} wins, {found['tie']} ties, "
            told += f"{found['loss']} losses ({_of(found)})"
            made.append(_card(found["preferred"], told))
        elif result.get("ratings", {}).get("models"):
            best = result["ratings"]["models"][0]
            made.append(
                _card(
                    best["model"],
                    f"leads by {name}: rating {best['rating']:.0f} "
                    f"[{best['low']:.0f}, {best['high']:.0f}]",
                )
            )
        elif result.get("scores"):
            model, row = max(result["scores"].items(), key=lambda item: item[1]["mean"] or 0)
            made.append(_card(model, f"leads by {name}: mean {row['mean']:.2f} ({_of(row)})"))
    for model, row in figures["models"].items():
        found = row["accuracy"]
        if found and len(figures["models"]) <= 4:
            told = f"{model}: {found['correct']} of {found['total']} held-out answers correct"
            made.append(_card(f"{100 * found['rate']:.0f} %", told))
    counts = [result["judgments"] for result in figures["protocols"].values()]
    ok, total = sum(c["ok"] for c in counts), sum(c["total"] for c in counts)
    made.append(_card(f"{ok:,} of {total:,}", "judgments made and read"))
    made.append(_card(f"${figures['usd']:.2f}", "paid to judges, all runs together"))
    return f'<div class="cards">{"".join(made)}</div>'


def _card(figure: str, what: str) -> str:
    return (
        f'<div class="card"><div class="figure">{escape(figure)}</div>'
        f'<div class="what">{escape(what)}</div></div>'
    )


def _of(row: Mapping[str, Any]) -> str:
    return f"{row['n']} of {row['total']}"


def accuracy(figures: Mapping[str, Any], models: Sequence[str]) -> str:
    """Held-out questions with reference answers."""
    found = {name: row["accuracy"] for name, row in figures["models"].items() if row["accuracy"]}
    if not found:
        return ""
    chart = charts.bars(
        {name: 100 * row["rate"] for name, row in found.items()},
        models,
        "Accuracy on questions with reference answers, percent",
        100.0,
        " %",
        {name: (100 * row["low"], 100 * row["high"]) for name, row in found.items()},
    )
    categories = list(dict.fromkeys(c for row in found.values() for c in row["per_category"]))
    head = "".join(f"<th class=n>{escape(category)}</th>" for category in categories)
    rows = "".join(
        f"<tr><td>{_dot(models, name)}{escape(name)}</td><td class=n>{row['correct']} of "
        f"{row['total']}</td>{_category_cells(row['per_category'], categories)}</tr>"
        for name, row in found.items()
    )
    return (
        '<h2 id="accuracy">Held-out accuracy</h2><p class="lead">Answers that agree with the '
        "reference as the question demands. No judge is involved; lines are 95 % Wilson "
        f'intervals.</p><div class="panel">{chart}</div><div class="panel"><table><tr><th></th>'
        f"<th class=n>correct</th>{head}</tr>{rows}</table></div>"
    )


def _category_cells(found: Mapping[str, Any], categories: Sequence[str]) -> str:
    return "".join(
        f"<td class=n>{found[c]['correct']} of {found[c]['total']}</td>"
        if c in found
        else "<td class=n>&ndash;</td>"
        for c in categories
    )


def _dot(models: Sequence[str], name: str) -> str:
    return f'<span class="dot" style="background:{charts.color(models, name)}"></span>'


def protocol(name: str, figures: Mapping[str, Any], models: Sequence[str]) -> str:
    """Everything about one judging protocol."""
    result = figures["protocols"][name]
    judges = ", ".join(result["judge_labels"])
    parts = [
        f'<h2 id="{name}">{escape(name)}</h2><p class="lead">{escape(_ABOUT[name])} Judged by '
        f"{escape(judges)}. {_coverage(result['judgments'])} {_left_out(result['questions'])}</p>"
    ]
    drawn = [_quality(result, models), _ratings(result, models), _matrix(result, models)]
    parts.append(f'<div class="two">{"".join(drawn)}</div>')
    parts += [_pairs(result), _categories(result, models)]
    parts += [_length_control(result), _belief(result, figures)]
    return "".join(parts)


def _coverage(counts: Mapping[str, int]) -> str:
    lost = {name: n for name, n in counts.items() if name not in ("ok", "total") and n}
    if not lost:
        return f"All {counts['total']:,} judgments were made and read."
    told = ", ".join(f"{n} {name}" for name, n in lost.items())
    return f"<b>{counts['ok']:,} of {counts['total']:,}</b> judgments count; {told}."


def _left_out(counts: Mapping[str, int]) -> str:
    if counts["judged"] == counts["total"]:
        return ""
    return (
        f"<b>{counts['judged']} of {counts['total']} questions</b> are judged; the others have no "
        "reference answer for this judge to compare with."
    )


def _quality(result: Mapping[str, Any], models: Sequence[str]) -> str:
    if "scores" not in result:
        return ""
    rows = {k: v for k, v in result["scores"].items() if v["mean"] is not None}
    ordered = dict(sorted(rows.items(), key=lambda item: -item[1]["mean"]))
    percent = result["relative_quality"]["percent"]
    chart = charts.bars(
        {name: row["mean"] for name, row in ordered.items()},
        models,
        "Mean score of 10",
        10.0,
        "",
        {name: (row["low"], row["high"]) for name, row in ordered.items()},
        {name: f"{percent[name]:.0f} %" for name in ordered},
    )
    anchor = escape(result["relative_quality"]["baseline"])
    return (
        f'<div class="panel"><h3>Mean score and quality relative to {anchor}</h3>{chart}'
        '<p class="note">Lines are 95 % intervals over questions.</p></div>'
    )


def _ratings(result: Mapping[str, Any], models: Sequence[str]) -> str:
    rows = result.get("ratings", {}).get("models")
    if not rows:
        return ""
    chart = charts.whiskers(rows, models, "Bradley-Terry ratings on the Elo scale")
    note = "Bradley-Terry, Elo scale, 95 % intervals from resampled questions."
    if not result["ratings"]["is_connected"]:
        note += " Some model never wins or never loses: one virtual tie a pair keeps this finite."
    return f'<div class="panel"><h3>Ratings</h3>{chart}<p class="note">{note}</p></div>'


def _pairs(result: Mapping[str, Any]) -> str:
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
            sums = row.get("score_totals")
            shown = f"{sums['first']:.1f} : {sums['second']:.1f}" if sums else "&ndash;"
            totals = f"<td class=n>{shown}</td>"
        body.append(
            f"<tr><td class=name>{first}<br><span class=muted>vs {second}</span></td>"
            f"<td class=bar>{bar}</td><td class=n>{rate}</td>{totals}"
            f"<td class=n>{_of(row)}</td></tr>"
        )
    head = "<th class=n>score totals</th>" if has_totals else ""
    return (
        '<div class="panel"><h3>Pair by pair: wins, ties and losses of the first</h3><table><tr>'
        f"<th></th><th></th><th class=n>win rate</th>{head}<th class=n>questions</th></tr>"
        f"{''.join(body)}</table></div>"
    )


def _matrix(result: Mapping[str, Any], models: Sequence[str]) -> str:
    rates = result.get("ratings", {}).get("win_rates")
    if not rates or len(rates) < 3:
        return ""
    order = [row["model"] for row in result["ratings"]["models"]]
    head = "".join(f"<th>{escape(name)}</th>" for name in order)
    rows = "".join(
        f"<tr><td class=name>{_dot(models, first)}{escape(first)}</td>"
        + "".join(_heat(rates[first].get(second), 100, " %") for second in order)
        + "</tr>"
        for first in order
    )
    return (
        '<div class="panel"><h3>Win rate of the row against the column</h3>'
        f"<table><tr><th></th>{head}</tr>{rows}</table></div>"
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


def _categories(result: Mapping[str, Any], models: Sequence[str]) -> str:
    table = _category_table(result)
    if not table:
        return ""
    categories = list(dict.fromkeys(c for row in table.values() for c in row))
    if "ratings" in result:
        order = [row["model"] for row in result["ratings"]["models"]]
        table = {name: table[name] for name in sorted(table, key=order.index)}
    is_scores = "scores" in result
    head = "".join(f"<th>{escape(category)}</th>" for category in categories)
    rows = "".join(
        f"<tr><td class=name>{_dot(models, name)}{escape(name)}</td>"
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
        f'<div class="panel"><h3>{what} by category</h3><table><tr><th></th>{head}</tr>{rows}'
        "</table></div>"
    )


def _score_cell(value: float) -> str:
    strength = round(max(0.0, value - 1) / 9 * 58)
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


def _length_control(result: Mapping[str, Any]) -> str:
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


def _belief(result: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    """What speaks for and against the judge."""
    made = []
    bias = result.get("bias") or {}
    consistent, first, longer = (
        bias.get(name) for name in ("order_consistent", "first_shown_wins", "longer_wins")
    )
    if consistent:
        made.append(_card(_percent(consistent), "of pairs judged alike in both orders"))
    if first:
        made.append(_card(_percent(first), f"of decisions for the answer shown first {_ci(first)}"))
    if longer:
        made.append(_card(_percent(longer), f"of decisions for the longer answer {_ci(longer)}"))
    if own := bias.get("own_family_wins"):
        made.append(_card(_percent(own), f"of decisions for the judge's own family {_ci(own)}"))
    if check := bias.get("self_check"):
        told = f"ties on identical answers; first {check['first']}, second {check['second']}"
        made.append(_card(f"{check['tie']} of {check['n']}", told))
    if canaries := result.get("canaries"):
        told = "canaries judged right"
        if drift := canaries["drift"]:
            told += f"; {drift['flipped']} of {drift['n']} flipped since the earlier run"
        made.append(_card(f"{canaries['right']} of {canaries['n']}", told))
    if agreement := result.get("agreement"):
        alpha = agreement["krippendorff_alpha"]
        made.append(_card(f"{alpha:.2f}", "Krippendorff's alpha between the judges"))
        made += [
            _card(
                f"{pair['kappa']:.2f}", f"kappa of {' and '.join(pair['judges'])} (n={pair['n']})"
            )
            for pair in agreement["pairs"]
        ]
    if human := result.get("human_agreement"):
        told = f"agreement with people (n={human['n']}, kappa {human['kappa']:.2f})"
        made.append(_card(f"{100 * human['agreement']:.0f} %", told))
    flagged = sum(len(row["suspicious"]) for row in figures["models"].values())
    made.append(_card(str(flagged), "answers that seem to address the judge"))
    if latency := result.get("latency_s"):
        told = f"median response; 95th percentile {latency['p95']:.1f} s"
        made.append(_card(f"{latency['p50']:.1f} s", told))
    return f'<h3 style="margin-top:26px">Can this judge be believed?</h3><div class="cards" \
style="margin-top:10px">{"".join(made)}</div>'


def _percent(found: Mapping[str, Any]) -> str:
    return f"{100 * found['share']:.0f} %"


def _ci(found: Mapping[str, Any]) -> str:
    return f"[{100 * found['low']:.0f}, {100 * found['high']:.0f}], n={found['n']}"


def references(figures: Mapping[str, Any]) -> str:
    """The published tables of the Vicuna work, to be read beside one's own run."""
    tables = figures.get("reference_tables")
    if not tables:
        return ""
    body = []
    for table in tables:
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td class=n>{pair['baseline_total']:.1f}</td>"
            f"<td class=n>{pair['vicuna_total']:.1f}</td></tr>"
            for name, pair in table["pairs"].items()
        )
        body.append(
            f'<div class="panel"><h3>{escape(table["name"])}</h3><table><tr><th>baseline</th>'
            f"<th class=n>baseline total</th><th class=n>Vicuna total</th></tr>{rows}</table></div>"
        )
    return f'<h2 id="reference">Published tables</h2><div class="two">{"".join(body)}</div>'


def contamination(figures: Mapping[str, Any]) -> str:
    found = figures.get("contamination")
    if not found:
        return ""
    rows = "".join(
        f"<tr><td>{escape(item['question_id'])}</td><td class=n>{100 * item['overlap']:.0f} %</td>"
        f"<td class=n>{100 * item['similarity']:.0f} %</td>"
        f"<td>{escape(item['example'][:160])}</td></tr>"
        for item in found["contaminated"]
    )
    table = (
        "<table><tr><th>question</th><th class=n>n-grams seen</th><th class=n>similarity</th>"
        f"<th>in the training data</th></tr>{rows}</table>"
        if rows
        else ""
    )
    told = f"{len(found['contaminated'])} of {found['questions']} questions occur in "
    told += f"{found['texts']:,} training texts."
    return (
        f'<h2 id="contamination">Contamination</h2><div class="panel"><p>{escape(told)}</p>{table}'
        "</div>"
    )


def manifest(figures: Mapping[str, Any]) -> str:
    text = json.dumps(figures["manifest"], indent=2, ensure_ascii=False)
    return (
        '<h2 id="manifest">Manifest</h2><p class="lead">What made these figures: digests of '
        "questions and prompts, the judge's snapshots, prices, seeds and versions.</p>"
        '<details class="manifest panel"><summary>Show</summary>'
        f'<pre class="block">{escape(text)}</pre></details>'
    )
