"""What speaks for and against a judge, as cards of report.html."""

from collections.abc import Mapping
from html import escape
from typing import Any

from apps.eval.page.parts import card


def belief(result: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    """What speaks for and against the judge."""
    made = []
    bias = result.get("bias") or {}
    consistent, first, longer = (
        bias.get(name) for name in ("order_consistent", "first_shown_wins", "longer_wins")
    )
    if consistent:
        made.append(card(_percent(consistent), "of pairs judged alike in both orders"))
    if first:
        told = f"of decisions for the answer shown first {_ci(first)}"
        # With one order a model's strength and its place cannot be told apart.
        told += "" if consistent else "; one order only, so this is also the models' difference"
        made.append(card(_percent(first), told))
    if longer:
        made.append(card(_percent(longer), f"of decisions for the longer answer {_ci(longer)}"))
    if own := bias.get("own_family_wins"):
        made.append(card(_percent(own), f"of decisions for the judge's own family {_ci(own)}"))
    if check := bias.get("self_check"):
        told = f"ties on identical answers; first {check['first']}, second {check['second']}"
        made.append(card(f"{check['tie']} of {check['n']}", told))
    if canaries := result.get("canaries"):
        told = "canaries judged right"
        if drift := canaries["drift"]:
            told += f"; {drift['flipped']} of {drift['n']} flipped since the earlier run"
        made.append(card(f"{canaries['right']} of {canaries['n']}", told))
    if agreement := result.get("agreement"):
        if (alpha := agreement["krippendorff_alpha"]) is not None:
            made.append(card(f"{alpha:.2f}", "Krippendorff's alpha between the judges"))
        made += [
            card(f"{pair['kappa']:.2f}", f"kappa of {' and '.join(pair['judges'])} (n={pair['n']})")
            for pair in agreement["pairs"]
        ]
    if human := result.get("human_agreement"):
        told = f"agreement with people (n={human['n']}, kappa {human['kappa']:.2f})"
        made.append(card(f"{100 * human['agreement']:.0f} %", told))
    flagged = sum(len(row["suspicious"]) for row in figures["models"].values())
    made.append(card(str(flagged), "suspicious answers, marked below"))
    return (
        f'<h3 class="believed">Can this judge be believed?</h3>{_doubts(result)}'
        f'<div class="cards">{"".join(made)}</div>{_judges(result)}'
    )


def _doubts(result: Mapping[str, Any]) -> str:
    """What speaks against a judge, in sentences."""
    told = [
        f"<li><b>{escape(judge)}</b> {escape(sentence)}.</li>"
        for judge, row in result["by_judge"].items()
        for sentence in row["doubts"]
    ]
    return f'<ul class="banner">{"".join(told)}</ul>' if told else ""


def _judges(result: Mapping[str, Any]) -> str:
    """The same figures judge by judge, where several were pooled."""
    rows = {judge: row for judge, row in result["by_judge"].items() if row["bias"]}
    if len(rows) < 2:
        return ""
    names = {
        "order_consistent": "alike in both orders",
        "first_shown_wins": "shown first",
        "longer_wins": "longer",
        "own_family_wins": "own family",
    }
    head = "".join(f"<th class=n>{name}</th>" for name in (*names.values(), "A/A ties", "canaries"))
    body = "".join(
        f"<tr><td class=name>{escape(judge)}</td>"
        + "".join(_cell(row["bias"].get(name)) for name in names)
        + _count(row["bias"].get("self_check"), "tie")
        + _count(row["canaries"], "right")
        + "</tr>"
        for judge, row in rows.items()
    )
    return (
        f'<div class="panel"><h3>Judge by judge</h3><table><tr><th></th>{head}</tr>{body}</table>'
        "</div>"
    )


def _cell(found: Mapping[str, Any] | None) -> str:
    if not found:
        return "<td class=n>&ndash;</td>"
    interval = f"{100 * found['low']:.0f}&ndash;{100 * found['high']:.0f}"
    return f"<td class=n>{_percent(found)} <span class=muted>{interval}</span></td>"


def _count(found: Mapping[str, Any] | None, name: str) -> str:
    told = f"{found[name]} of {found['n']}" if found else "&ndash;"
    return f"<td class=n>{told}</td>"


def _percent(found: Mapping[str, Any]) -> str:
    return f"{100 * found['share']:.0f} %"


def _ci(found: Mapping[str, Any]) -> str:
    return f"[{100 * found['low']:.0f}, {100 * found['high']:.0f}], n={found['n']}"
