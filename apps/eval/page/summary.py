"""The first cards of report.html: the few numbers that one wants first."""

from apps.common.page.render import fixed
from apps.eval.figures.report import Figures, ProtocolFigures
from apps.eval.page.parts import Card, percent


def summary(figures: Figures) -> list[Card]:
    leaders = [_leader(name, result) for name, result in figures.protocols.items()]
    cards = [card for card in leaders if card]
    for model, row in figures.models.items():
        if (right := row.accuracy) and len(figures.models) <= 4:
            told = f"{model}: {right.correct} of {right.total} held-out answers correct"
            cards.append(Card(figure=percent(right.rate), what=told))
    counts = [result.judgments for result in figures.protocols.values()]
    ok, total = sum(count.ok for count in counts), sum(count.total for count in counts)
    cards.append(Card(figure=f"{ok:,} of {total:,}", what="judgments made and read"))
    if figures.costs:
        paid = "paid to judges, all runs together"
        if figures.unanswered.calls:
            paid += f", and up to ${figures.unanswered.usd:.2f} for calls without a reply"
        cards.append(Card(figure=f"${figures.usd:.2f}", what=paid))
    return cards


def _leader(protocol: str, result: ProtocolFigures) -> Card | None:
    """Whom one protocol prefers."""
    if result.compared and (preference := result.compared.preference):
        told = f"preferred over {preference.over}: {preference.win} wins, {preference.tie} ties, "
        told += f"{preference.loss} losses ({preference.n} of {preference.total})"
        return Card(figure=preference.preferred, what=told)
    if result.rated:
        best = result.rated[0]
        interval = f"[{fixed(best.low)}, {fixed(best.high)}]"
        told = f"leads by {protocol}: rating {fixed(best.rating)} {interval}"
        return Card(figure=best.model, what=told)
    if result.scored:
        model, row = max(result.scored.items(), key=lambda item: item[1].mean or 0.0)
        told = f"leads by {protocol}: mean {row.mean:.2f} ({row.n} of {row.total})"
        return Card(figure=model, what=told)
    return None
