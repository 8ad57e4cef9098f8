"""The cost of a run on a machine that was at hand."""

import json
from dataclasses import replace
from pathlib import Path

from apps.common.files import costs
from apps.common.files.costs import MachineHours, run_cost
from apps.train.loop.own_cost import write_missing_cost, write_own_cost
from apps.train.presets import debug


def test_hours_are_those_of_the_metrics_and_a_launchers_file_stays(tmp_path: Path) -> None:
    config = replace(debug(), out=str(tmp_path))
    config = replace(config, metrics=replace(config.metrics, usd_per_hour=2.0))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "seconds": 5400.0}) + "\n")
    write_own_cost(config)
    cost = costs.read(str(tmp_path))
    assert cost and (cost.usd, cost.usd_on_demand, cost.machines[0].hours) == (3.0, 3.0, 1.5)
    row = MachineHours(kind="8xH100", region="z", market="spot", hours=1, usd=18)
    launched = run_cost([row], lost_work_hours=0, on_demand_usd_per_hour=19, prices_dated="x")
    costs.write(str(tmp_path), launched)
    write_own_cost(config)
    assert costs.read(str(tmp_path)) == launched


def test_work_that_was_lost_is_paid_twice_and_said(tmp_path: Path) -> None:
    config = replace(debug(), out=str(tmp_path))
    config = replace(config, metrics=replace(config.metrics, usd_per_hour=2.0))
    steps = [{"step": 1, "seconds": 3600.0}, {"step": 2, "seconds": 9000.0, "lost_s": 1800.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in steps))
    write_own_cost(config)
    cost = costs.read(str(tmp_path))
    assert cost and (cost.usd, cost.lost_work_hours, cost.lost_work_usd) == (5.0, 0.5, 1.0)
    assert cost.usd_on_demand == 4.0


def test_a_finished_run_that_is_asked_again_without_its_price_keeps_its_cost(
    tmp_path: Path,
) -> None:
    free = replace(debug(), out=str(tmp_path))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "seconds": 3600.0}) + "\n")
    for stated, usd in ((0.0, 0.0), (6.0, 6.0), (0.0, 6.0), (4.0, 4.0)):
        write_missing_cost(replace(free, metrics=replace(free.metrics, usd_per_hour=stated)))
        assert (cost := costs.read(str(tmp_path))) and cost.usd == usd
