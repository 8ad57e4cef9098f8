"""What speaks for and against a judge, as cards of report.html."""

from collections.abc import Iterable

from apps.eval.figures.judges import Bias
from apps.eval.figures.report import Figures, ProtocolFigures
from apps.eval.page.parts import Card, bracket, percent


def judge_cards(result: ProtocolFigures, figures: Figures) -> list[Card]:
    cards = [*_bias_cards(result.compared.bias)] if result.compared else []
    if canaries := result.canaries:
        told = "canaries judged right"
        if drift := canaries.drift:
            told += f"; {drift.flipped} of {drift.n} flipped since the earlier run"
        cards.append(Card(figure=f"{canaries.right} of {canaries.n}", what=told))
    cards += _agreement_cards(result)
    flagged = sum(len(row.suspicious) for row in figures.models.values())
    return [*cards, Card(figure=str(flagged), what="suspicious answers, marked below")]


def _bias_cards(bias: Bias) -> Iterable[Card]:
    if bias.order_consistent:
        told = "of pairs judged alike in both orders"
        yield Card(figure=percent(bias.order_consistent.share), what=told)
    if first := bias.first_shown_wins:
        told = f"of decisions for the answer shown first {bracket(first)}"
        # With one order a model's strength and its place cannot be told apart.
        if not bias.order_consistent:
            told += "; one order only, so this is also the models' difference"
        yield Card(figure=percent(first.share), what=told)
    if longer := bias.longer_wins:
        told = f"of decisions for the longer answer {bracket(longer)}"
        yield Card(figure=percent(longer.share), what=told)
    if own := bias.own_family_wins:
        told = f"of decisions for the judge's own family {bracket(own)}"
        yield Card(figure=percent(own.share), what=told)
    if check := bias.self_check:
        told = f"ties on identical answers; first {check.first}, second {check.second}"
        yield Card(figure=f"{check.tie} of {check.n}", what=told)


def _agreement_cards(result: ProtocolFigures) -> Iterable[Card]:
    if agreement := result.agreement:
        if (alpha := agreement.krippendorff_alpha) is not None:
            yield Card(figure=f"{alpha:.2f}", what="Krippendorff's alpha between the judges")
        for pair in agreement.pairs:
            told = f"kappa of {' and '.join(pair.judges)} (n={pair.n})"
            yield Card(figure=f"{pair.kappa:.2f}", what=told)
    if result.calibration:
        human = result.calibration.agreement
        told = f"agreement with people (n={human.n}, kappa {human.kappa:.2f})"
        yield Card(figure=percent(human.agreement), what=told)
