"""What a pool's workers have cost, beside as many machines on demand as have to be ready."""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.common.files.costs import MachineHours, RunCost, run_cost
from apps.common.spot.trace import ON_DEMAND
from cluster.workers import Rented


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """The kind that is rented."""

    kind: str
    """such as 1xL4"""
    on_demand_usd: float
    """an hour"""
    spot_usd: float
    """an hour"""

    @property
    def prices(self) -> str:
        return f"given: ${self.on_demand_usd:g} an hour on demand, ${self.spot_usd:g} on spot"


def pool_cost(rented: Sequence[Rented], machine: Machine, replicas: int, now_s: float) -> RunCost:
    """Up to now.

    Worked example: two on spot at $0.30 for 10 h and one on demand at $0.90 for 1 h are $6.90;
    two replicas on demand all the time, $18.00.
    """
    hours_at = dict[str, float]()
    for one in rented:
        hours = (_end_s(one, now_s) - one.begun_s) / 3600
        hours_at[one.place] = hours_at.get(one.place, 0.0) + hours
    rows = [_row(machine, place, hours) for place, hours in sorted(hours_at.items())]
    return run_cost(
        rows,
        lost_work_hours=0.0,
        on_demand_usd_per_hour=machine.on_demand_usd,
        prices_dated=machine.prices,
        on_demand_hours=replicas * _covered_s(rented, now_s) / 3600,
    )


def _row(machine: Machine, place: str, hours: float) -> MachineHours:
    dear = place == ON_DEMAND
    return MachineHours(
        kind=machine.kind,
        region="any" if dear else place,
        market="on-demand" if dear else "spot",
        hours=hours,
        usd=hours * (machine.on_demand_usd if dear else machine.spot_usd),
    )


def _covered_s(rented: Sequence[Rented], now_s: float) -> float:
    """Time in which there was any machine: a pool that was ended and begun again cost nothing in
    between, on demand either."""
    covered_s, until_s = 0.0, 0.0
    for one in sorted(rented, key=lambda one: one.begun_s):
        end_s = _end_s(one, now_s)
        covered_s += max(end_s - max(one.begun_s, until_s), 0.0)
        until_s = max(until_s, end_s)
    return covered_s


def _end_s(one: Rented, now_s: float) -> float:
    return max(now_s, one.begun_s) if one.ended_s is None else one.ended_s
