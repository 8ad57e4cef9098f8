"""`cost.json` of a run: machine hours by kind, place and market, and what they cost.

The launcher writes it, which knows what was rented when (`cluster/launch.py`, for a service
`cluster/launch_workers.py`); on a machine of one's own `apps.train run` does. Every amount is in
whole cents, and the sums are those of the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from apps.common.files import config as configs
from apps.common.files import storage

COST_NAME = "cost.json"
Market = Literal["spot", "on-demand"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineHours:
    """What was rented of one kind in one place."""

    kind: str
    """as `--gpus` has it: 8xA100-80GB"""
    region: str
    market: Market
    hours: float
    """of the whole group of machines, restarts with it"""
    usd: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCost:
    """The file."""

    machines: tuple[MachineHours, ...]
    lost_work_hours: float
    """Training that a preemption took back."""
    lost_work_usd: float
    """At what those hours cost on average."""
    usd: float
    usd_on_demand: float
    """The same work on machines that stay: a run's hours without the lost ones, and as many
    machines as a service has to have, all the time."""
    prices_dated: str
    """Who says the prices, and when."""


def run_cost(
    machines: Sequence[MachineHours],
    *,
    lost_work_hours: float,
    on_demand_usd_per_hour: float,
    prices_dated: str,
    on_demand_hours: float | None = None,
) -> RunCost:
    """The totals of some rows; machines that stay take `on_demand_hours`, or those of the rows but
    for the lost ones.

    Worked example: 10 h on spot at $6.88 are $68.80; of them 1 h was lost, $6.88; on demand at
    $12.00 the other 9 h are $108.00.
    """
    rows = tuple(
        MachineHours(
            kind=row.kind, region=row.region, market=row.market,
            hours=round(row.hours, 4), usd=round(row.usd, 2),
        )
        for row in machines
    )  # fmt: skip
    hours, usd = sum(row.hours for row in rows), round(sum(row.usd for row in rows), 2)
    stays = hours - lost_work_hours if on_demand_hours is None else on_demand_hours
    return RunCost(
        machines=rows,
        lost_work_hours=round(lost_work_hours, 4),
        lost_work_usd=round(usd / hours * lost_work_hours, 2) if hours else 0.0,
        usd=usd,
        usd_on_demand=round(stays * on_demand_usd_per_hour, 2),
        prices_dated=prices_dated,
    )


def write(run_uri: str, cost: RunCost) -> None:
    configs.write_json(cost, storage.join(run_uri, COST_NAME))


def read(run_uri: str) -> RunCost | None:
    """None for a run whose cost nobody wrote."""
    return configs.read_json(RunCost, storage.join(run_uri, COST_NAME))


def facts(run_uri: str) -> dict[str, float | str] | None:
    """What lineage carries: the totals, and the file's digest."""
    cost = read(run_uri)
    if cost is None:
        return None
    return {
        "digest": storage.digest_file(storage.join(run_uri, COST_NAME)),
        "usd": cost.usd,
        "usd_on_demand": cost.usd_on_demand,
        "lost_work_hours": cost.lost_work_hours,
        "lost_work_usd": cost.lost_work_usd,
    }
