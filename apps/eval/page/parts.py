"""What every template of the evaluation's pages may use: cards, colours, heat, drawings."""

from dataclasses import dataclass
from math import floor, log10
from pathlib import Path

from markupsafe import Markup

from apps.common.page.render import environment, fixed
from apps.eval.figures.judges import Share
from apps.eval.page import charts


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A figure in large letters and what it is."""

    figure: str
    what: str


def percent(share: float, digits: int = 0) -> str:
    return f"{fixed(100 * share, digits)} %"


def bracket(share: Share) -> str:
    """[low, high] in percent, and how many it rests on."""
    return f"[{100 * share.low:.0f}, {100 * share.high:.0f}], n={share.n}"


def win_heat(share: float) -> Markup:
    """The background of a cell: green above one half, red below."""
    shade = "--win" if share >= 0.5 else "--loss"
    return _heat(shade, round(min(1.0, abs(share - 0.5) / 0.5) * 62))


def score_heat(score: float, scale: tuple[float, float]) -> Markup:
    share = (score - scale[0]) / (scale[1] - scale[0])
    # Squared, because good models differ in the upper third of the scale only.
    return _heat("--win", round(70 * min(1.0, max(0.0, share)) ** 2))


def score(value: float, scale: tuple[float, float]) -> str:
    """A mean score, to a hundredth of its scale or so: 7.3 of 1 to 10, 0.73 of 0 to 1."""
    return fixed(value, digits_of(scale))


def digits_of(scale: tuple[float, float]) -> int:
    """Digits behind the point that a mean score is worth."""
    return max(1, 1 - floor(log10((scale[1] - scale[0]) / 9)))


def _heat(shade: str, strength_percent: int) -> Markup:
    return Markup(f"background:color-mix(in srgb, var({shade}) {strength_percent}%, var(--card))")


_ENVIRONMENT = environment(
    Path(__file__).parent / "templates",
    {
        "bars": charts.bars,
        "color": charts.color,
        "curve": charts.curve,
        "digits_of": digits_of,
        "percent": percent,
        "score": score,
        "score_heat": score_heat,
        "split_bar": charts.split_bar,
        "whiskers": charts.whiskers,
        "win_heat": win_heat,
    },
)


def fill(template: str, **values: object) -> str:
    """A template of `templates/` with its values."""
    return _ENVIRONMENT.get_template(template).render(values)
