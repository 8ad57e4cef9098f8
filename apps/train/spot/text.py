"""A simulation as text for a terminal: what was asked, then a table a market."""

from collections.abc import Iterator

from apps.train.spot.result import Figures, Optimum, Simulated, Simulation


def lines(simulation: Simulation, *, each: bool) -> Iterator[str]:
    """The table of all markets; with `each`, one of every market before it."""
    until = "no deadline"
    if simulation.deadline_h is not None:
        until = f"deadline {simulation.deadline_h:.1f} h"
    yield (
        f"{simulation.machines}: {simulation.work_h:.1f} h of training, {until}, restarts of "
        f"{simulation.restart_s / 60:.1f} min, a checkpoint every {simulation.checkpoint_s:.0f} s"
    )
    yield (
        f"${simulation.spot_usd_per_hour:.2f} an hour on spot, "
        f"${simulation.on_demand_usd_per_hour:.2f} on demand: "
        f"${simulation.on_demand_usd:,.2f} on demand alone"
    )
    if simulation.too_short:
        yield f"too short for a run in each half: {', '.join(simulation.too_short)}"
    shown = simulation.markets if each else ()
    for market in (*shown, simulation.together):
        yield ""
        yield from _table(market)
    yield ""
    yield "h?: median hours as the first halves of the traces foretell them; the rest is replayed"
    yield "on the second halves. optimum: the cheapest schedule of one who knows the future."


_HEAD = (
    f"{'policy':<22}{'h p50':>7}{'p90':>7}{'h?':>7}{'wait':>7}{'p90':>7}{'$ mean':>9}{'p50':>9}"
    f"{'p90':>9}{'taken':>6}{'o-d':>6}{'lost h':>7}{'missed':>8}"
)


def _table(market: Simulated) -> Iterator[str]:
    yield (
        f"{market.market}: {market.policies[0].runs} runs, {market.zones} zones, machines "
        f"{market.availability:.0%} of the time"
    )
    yield _HEAD
    for figures in market.policies:
        yield _row(figures)
    yield f"{'optimum':<22}{'':>35}{_usd(market.optimum)}"


def _row(figures: Figures) -> str:
    return (
        f"{figures.policy:<22}{_amount(figures.hours_p50, 7)}{_amount(figures.hours_p90, 7)}"
        f"{_amount(figures.predicted_hours_p50, 7)}{_amount(figures.waiting_h_p50, 7)}"
        f"{_amount(figures.waiting_h_p90, 7)}{_usd(figures)}"
        f"{figures.preemptions:>6.1f}{figures.on_demand_share:>6.0%}"
        f"{figures.lost_work_h:>7.2f}{figures.missed:>8.0%}"
    )


def _usd(paid: Figures | Optimum) -> str:
    return "".join(_amount(usd, 9, 2) for usd in (paid.usd_mean, paid.usd_p50, paid.usd_p90))


def _amount(value: float, width: int, digits: int = 1) -> str:
    return f"{'no end':>{width}}" if value == float("inf") else f"{value:>{width},.{digits}f}"
