"""What speaks for and against a judge, as cards of report.html."""

from collections.abc import Mapping
from typing import Any

from apps.eval.parts import card


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
        alpha = agreement["krippendorff_alpha"]
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
    return f'<h3 style="margin-top:26px">Can this judge be believed?</h3><div class="cards" \
style="margin-top:10px">{"".join(made)}</div>'


def _percent(found: Mapping[str, Any]) -> str:
    return f"{100 * found['share']:.0f} %"


def _ci(found: Mapping[str, Any]) -> str:
    return f"[{100 * found['low']:.0f}, {100 * found['high']:.0f}], n={found['n']}"
