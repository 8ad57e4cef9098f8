"""Inline SVG charts. Colours are CSS variables, so that one drawing serves light and dark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from apps.eval.figures.models import RatingRow, WinTieLoss

# About the width of a phone's panel, where the text is then of its own size.
WIDTH = 400
LABEL = 126
BAR = 22
GAP = 13


def color(models: Sequence[str], model: str) -> str:
    """The same model has the same colour everywhere on the page."""
    return f"var(--m{models.index(model) % 8})" if model in models else "var(--faint)"


def _svg(height: float, body: Sequence[str], title: str) -> Markup:
    label = escape(title, quote=True)
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{label}">'
        f"<title>{label}</title>{''.join(body)}</svg>"
    )


def _text(
    x: float, y: float, text: str, anchor: str = "start", cls: str = "", size: int = 13
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'class="{cls}">{escape(text)}</text>'
    )


def _short(name: str, length: int = 17) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def bars(
    values: Mapping[str, float],
    models: Sequence[str],
    title: str,
    scale: tuple[float, float],
    suffix: str = "",
    intervals: Mapping[str, tuple[float, float]] | None = None,
    notes: Mapping[str, str] | None = None,
    digits: int = 1,
) -> Markup:
    """Horizontal bars over `scale` with optional whiskers; `notes` stand in their own column."""
    bottom, top = scale
    room = WIDTH - LABEL - (96 if notes else 60)

    def length(value: float) -> float:
        return room * (min(value, top) - bottom) / (top - bottom)

    body: list[str] = []
    for row, (name, value) in enumerate(values.items()):
        y = 6 + row * (BAR + GAP)
        width = max(1.0, length(value))
        body.append(_text(LABEL - 12, y + 15.5, _short(name), "end"))
        body.append(
            f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}" rx="4" '
            f'fill="{color(models, name)}" opacity=".9"/>'
        )
        end = width
        if intervals and name in intervals:
            low, high = (length(edge) for edge in intervals[name])
            middle = y + BAR / 2
            body.append(
                f'<path d="M{LABEL + low:.1f} {middle}H{LABEL + high:.1f}'
                f"M{LABEL + low:.1f} {middle - 5}v10M{LABEL + high:.1f} {middle - 5}v10"
                '" stroke="var(--ink)" stroke-width="1.4" fill="none"/>'
            )
            end = max(end, high)
        body.append(_text(LABEL + end + 8, y + 15.5, f"{value:.{digits}f}{suffix}"))
        if notes and name in notes:
            body.append(_text(WIDTH - 4, y + 15.5, notes[name], "end", "soft"))
    return _svg(8 + len(values) * (BAR + GAP), body, title)


def whiskers(rows: Sequence[RatingRow], models: Sequence[str], title: str) -> Markup:
    """Ratings as dots with intervals on a common axis."""
    low, high = min(row.low for row in rows), max(row.high for row in rows)
    pad = max(10.0, 0.06 * (high - low))
    low, high = low - pad, high + pad
    room = WIDTH - LABEL - 56

    def x(value: float) -> float:
        return LABEL + room * (value - low) / (high - low)

    height = 30 + len(rows) * 34
    body: list[str] = []
    for tick in _ticks(low, high):
        body.append(f'<path d="M{x(tick):.1f} 4V{height - 22}" class="grid"/>')
        body.append(_text(x(tick), height - 6, f"{tick:g}", "middle", "soft", 12))
    for number, row in enumerate(rows):
        y = 20 + number * 34
        shade = color(models, row.model)
        body.append(_text(LABEL - 12, y + 4.5, _short(row.model), "end"))
        body.append(
            f'<path d="M{x(row.low):.1f} {y}H{x(row.high):.1f}" '
            f'stroke="{shade}" stroke-width="5" stroke-linecap="round" opacity=".38"/>'
            f'<circle cx="{x(row.rating):.1f}" cy="{y}" r="6" fill="{shade}"/>'
        )
        body.append(_text(WIDTH - 4, y + 4.5, f"{row.rating:.0f}", "end"))
    return _svg(height, body, title)


def _ticks(low: float, high: float) -> list[float]:
    step = next(
        size for size in (10, 20, 50, 100, 200, 500, 1000, 5000, 10**6) if (high - low) / size <= 7
    )
    first = int(low // step + 1) * step
    return [float(tick) for tick in range(first, int(high) + 1, step)]


def split_bar(counts: WinTieLoss) -> Markup:
    """Win, tie and loss of a pair as one bar, with the counts below, where one of 80 shows too."""
    win, tie, loss = counts.win, counts.tie, counts.loss
    parts = ((win, "win", "wins"), (tie, "tie", "ties"), (loss, "loss", "losses"))
    boxes = "".join(
        f'<i class="{cls}" style="flex:{count}" title="{count} {name}"></i>'
        for count, cls, name in parts
        if count
    )
    return Markup(
        f'<div class="split">{boxes}</div><span class="muted">{win} / {tie} / {loss}</span>'
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """A value and its interval at one step."""

    step: int
    value: float
    low: float
    high: float


def curve(points: Sequence[CurvePoint], title: str, top: float) -> Markup:
    """A line over training steps."""
    height, left, right, bottom = 230, 40, 24, 30
    steps = [point.step for point in points]
    first, span = min(steps), max(1.0, max(steps) - min(steps))

    def x(step: float) -> float:
        return left + (WIDTH - left - right) * (step - first) / span

    def y(value: float) -> float:
        return 12 + (height - bottom - 16) * (1 - value / top)

    body: list[str] = []
    for value in (0.0, 0.25 * top, 0.5 * top, 0.75 * top, top):
        body.append(f'<path d="M{left} {y(value):.1f}H{WIDTH - right}" class="grid"/>')
        body.append(_text(left - 8, y(value) + 4, f"{value:g}", "end", "soft", 12))
    for point in points:
        body.append(
            f'<path d="M{x(point.step):.1f} {y(point.low):.1f}V{y(point.high):.1f}" '
            'stroke="var(--m0)" stroke-width="5" stroke-linecap="round" opacity=".3"/>'
        )
    path = " ".join(f"{x(point.step):.1f},{y(point.value):.1f}" for point in points)
    body.append(f'<polyline points="{path}" fill="none" stroke="var(--m0)" stroke-width="2.5"/>')
    for point in points:
        place = f'cx="{x(point.step):.1f}" cy="{y(point.value):.1f}"'
        body.append(f'<circle {place} r="4.5" fill="var(--m0)"/>')
    body += [_text(x(step), height - 8, f"{step:g}", "middle", "soft", 12) for step in _few(steps)]
    return _svg(height, body, title)


def _few(steps: Sequence[float], num: int = 6) -> list[float]:
    """The last step and those before it at equal strides: labels that do not collide."""
    stride = -(-len(steps) // num)
    return list(steps[::-1][::stride])
