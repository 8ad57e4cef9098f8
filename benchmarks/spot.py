"""Policies for spot machines on the public traces: dollars against greedy and the optimum.

    CRIA_TEST_DATA=... python -m benchmarks.spot --json spot.json

Jobs of 10 and 48 h with 15 to 50 % slack and restarts of 3 and 12 minutes, each zone alone, and all
zones of a collection together. On demand costs three times spot, as V100 did then. The second half
of each trace is replayed; the first is what the fitted policies have learnt from. Beside the
optimum stand two bounds of what policies that do not know the future could reach, see
`benchmarks/spot_bounds.py`.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean

from apps.common.files.config import to_dict
from apps.common.spot import trace
from apps.train.spot import study
from apps.train.spot.job import Job, Prices
from apps.train.spot.result import Simulated
from benchmarks import spot_bounds
from benchmarks.spot_bounds import Drawn

PRICES = Prices(spot_usd=1.0, on_demand_usd=3.0)
NAMES = ("greedy", "uniform-progress-2024", "uniform-progress", "least-cost")


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One row of the table."""

    work_h: float
    slack: float
    restart_min: float
    alone: bool

    def job(self) -> Job:
        return Job(
            work_s=self.work_h * 3600,
            restart_s=self.restart_min * 60,
            checkpoint_s=600,
            flush_s=40,
            deadline_s=self.work_h * (1 + self.slack) * 3600,
        )


CASES = [
    Case(work_h=work_h, slack=slack, restart_min=restart_min, alone=alone)
    for alone, work_h, restart_min, slack in product(
        (True, False), (10, 48), (3, 12), (0.15, 0.25, 0.5)
    )
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What one row says."""

    made: Simulated
    hindsight_usd: float
    """Mean of the cheapest policy of each market, chosen by these very runs."""
    closable: float
    """Share of the gap that the best policy closes where machines come and go by a known law."""


def measure(case: Case, folder: str, starts: int) -> Measured:
    markets = trace.read([folder], 1)
    if case.alone:
        markets = [zone for market in markets for zone in market.alone()]
    job = case.job()
    made = [study.run(job, market, NAMES, PRICES, starts) for market in markets]
    runs = [one for one in made if one is not None]
    hindsight: list[float] = []
    drawn: list[Drawn] = []
    for seed, one in enumerate(runs):
        begins = study.starts(job, one.market, starts)
        usd = [[run.usd(PRICES) for run in made] for made in one.outcomes.values()]
        hindsight += spot_bounds.in_hindsight(job, one.market, PRICES, begins, usd)
        drawn.append(spot_bounds.closable(job, one.market, PRICES, starts, seed))
    return Measured(
        made=study.together(job, runs, PRICES),
        hindsight_usd=fmean(hindsight),
        closable=_closable(drawn),
    )


def _closable(drawn: Sequence[Drawn]) -> float:
    greedy, policy, optimum = (
        sum(fmean(usd) for usd in each)
        for each in zip(*((d.greedy_usd, d.policy_usd, d.optimum_usd) for d in drawn), strict=True)
    )
    return (greedy - policy) / (greedy - optimum)


def row(case: Case, measured: Measured) -> str:
    """Dollars, and the share of greedy's gap to the optimum that each policy closes."""
    made = measured.made
    usd = {figures.policy: figures.usd_mean for figures in made.policies}
    gap = usd["greedy"] - made.optimum.usd_mean
    closed = " | ".join(
        f"{amount:.2f} ({(usd['greedy'] - amount) / gap:+.2f})"
        for amount in (*(usd[name] for name in NAMES[1:]), measured.hindsight_usd)
    )
    off = max(abs(one.predicted_hours_p50 / one.hours_p50 - 1) for one in made.policies)
    missed = sum(one.missed for one in made.policies)
    return (
        f"| {'alone' if case.alone else 'together'} | {case.work_h:g} | {case.slack:.0%} | "
        f"{case.restart_min:g} | {usd['greedy']:.2f} | {closed} | {measured.closable:+.2f} | "
        f"{made.optimum.usd_mean:.2f} | {missed:g} | {off:.1%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=12)
    parser.add_argument("--traces", default="")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    folder = arguments.traces or str(
        Path(os.environ["CRIA_TEST_DATA"]) / "spot-traces" / "availability"
    )
    print(
        "| zones | h | slack | restart, min | greedy, $ | as published | fitted line | least-cost",
        end=" ",
    )
    print("| best in hindsight | closable | optimum | missed | hours foretold, off by |")
    print("|---|" + "---|" * 12)
    records: list[dict[str, object]] = []
    for case in CASES:
        measured = measure(case, folder, arguments.starts)
        print(row(case, measured), flush=True)
        records.append({"case": to_dict(case), "figures": to_dict(measured)})
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(records, indent=2))


if __name__ == "__main__":
    main()
