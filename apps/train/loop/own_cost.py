"""The `cost.json` of a run that nobody launched: the hours of a machine that was at hand."""

from apps.common.files import costs
from apps.common.files.costs import MachineHours, run_cost
from apps.train.config import RunConfig
from apps.train.loop.record import lost_s, read_metrics, spent_s

_SOURCE = "stated with --metrics.usd-per-hour"


def write_missing_cost(config: RunConfig) -> None:
    """Of a run that is finished: who asks again need not say its price again."""
    if config.metrics.usd_per_hour or costs.read(config.out) is None:
        write_own_cost(config)


def write_own_cost(config: RunConfig) -> None:
    """By `--metrics.usd-per-hour`; the file of a launcher, who knows what was rented, stays."""
    known = costs.read(config.out)
    if known is not None and known.prices_dated != _SOURCE:
        return
    records = read_metrics(config.out)
    hours, hourly = spent_s(records) / 3600, config.metrics.usd_per_hour
    row = MachineHours(kind="own", region="", market="on-demand", hours=hours, usd=hours * hourly)
    cost = run_cost(
        [row],
        lost_work_hours=lost_s(records) / 3600,
        on_demand_usd_per_hour=hourly,
        prices_dated=_SOURCE,
    )
    costs.write(config.out, cost)
