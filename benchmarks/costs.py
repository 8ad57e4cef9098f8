"""What training Vicuna costs: the published dollars beside planned and simulated ones.

    python -m benchmarks.costs

Prices are those of apps/train/planning/prices.yaml, with their dates. Planned: training and
preemptions every four hours. Simulated: 24 runs on a made-up market of three zones, whose machines
come for 4 h and go for 3 h on average, spot in whichever zone has some (`apps.train simulate`).
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

from apps.train.plan import make_plan
from apps.train.simulate import presets, simulate

PUBLISHED_USD = {"vicuna-7b": 140, "vicuna-13b": 300}
"""LMSYS blog, March 2023: 8 A100-80GB, spot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One preset on some GPUs, with the switches that make it fit."""

    preset: str
    gpus: str
    switches: tuple[tuple[str, str], ...] = ()


ROWS = (
    Row(preset="vicuna-7b", gpus="8xA100-80GB"),
    Row(preset="vicuna-7b", gpus="8xH100"),
    Row(preset="vicuna-7b", gpus="8xH200"),
    Row(preset="vicuna-7b", gpus="1xH200", switches=(("activation_checkpointing", "elementwise"),)),
    Row(preset="vicuna-13b", gpus="8xA100-80GB"),
    Row(preset="vicuna-13b", gpus="8xH100"),
    Row(preset="vicuna-13b", gpus="8xH200"),
)


def table() -> Iterator[str]:
    names = ("", "GPUs", "published, $", "training, h", "planned on spot, $")
    names += ("simulated p50, $", "p90, $", "on demand, $")
    yield f"| {' | '.join(names)} |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in ROWS:
        made = presets()[row.preset]()
        config = replace(made, gpus=row.gpus, policy="any-zone", **dict(row.switches))
        plan, simulation = make_plan(config), simulate(config)
        figures = simulation.together.policies[0]
        published = PUBLISHED_USD[row.preset] if row.gpus == "8xA100-80GB" else ""
        yield (
            f"| {row.preset} | {row.gpus} | {published} | {plan.training.hours:.1f} | "
            f"{plan.cost.expected_usd:.0f} | {figures.usd_p50:.0f} | {figures.usd_p90:.0f} | "
            f"{simulation.on_demand_usd:.0f} |"
        )


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    print("\n".join(table()))
