"""`python -m apps.serve simulate` as one types it."""

import json
from pathlib import Path

import pytest

from apps.common.command.cli import run
from apps.serve.__main__ import COMMANDS

SHORT = ("--generator.hours", "20", "--generator.zones", "2")


def simulate(*arguments: str) -> int:
    return run("apps.serve", COMMANDS, ["simulate", *arguments])


def test_it_prints_a_table_and_writes_it(tmp_path: Path, capsys) -> None:
    assert simulate(*SHORT, "--save", str(tmp_path), "--log-format", "text") == 0
    printed = capsys.readouterr().out
    assert "generated: 2 zones, 20 h" in printed and "skyserve+2" in printed
    saved = json.loads((tmp_path / "simulation.json").read_text())
    assert saved["together"]["outcomes"]["on-demand"]["cost"] == 1.0
    assert (tmp_path / "config.yaml").is_file()


def test_the_traces_of_two_folders_are_two_markets(tmp_path: Path, capsys) -> None:
    for name, counts in (("one", [1] * 30), ("many", [4] * 30)):
        (tmp_path / name).mkdir()
        trace = {"metadata": {"gap_seconds": 600}, "data": counts}
        (tmp_path / name / "zone.json").write_text(json.dumps(trace))
    asked = ("--trace", str(tmp_path), "--policy", "spread", "--replicas", "3")
    assert simulate(*asked, "--log-format", "json") == 0
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    ready = {m["market"]: m["outcomes"]["spread"]["availability"] for m in event["markets"]}
    assert ready == {"many": 1.0, "one": 1.0}  # a trace of 0 and 1 says only whether there are any
    assert simulate(*asked, "--machines", "1", "--log-format", "json") == 0
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    ready = {m["market"]: m["outcomes"]["spread"]["availability"] for m in event["markets"]}
    assert ready == {"many": 1.0, "one": 0.0}


def trace_of(folder: Path, *zones: list[int], gap_seconds: float = 600) -> str:
    for number, counts in enumerate(zones):
        record = {"metadata": {"gap_seconds": gap_seconds}, "data": counts}
        (folder / f"zone-{number}.json").write_text(json.dumps(record))
    return str(folder)


@pytest.mark.parametrize("gap_seconds", [60, 180, 240])
def test_a_trace_that_ends_before_anything_is_ready_is_a_sentence(
    tmp_path: Path, gap_seconds: float, capsys
) -> None:
    """One tick; a cold start takes 180 s."""
    code = simulate("--trace", trace_of(tmp_path, [4], gap_seconds=gap_seconds))
    assert code == (0 if gap_seconds > 180 else 2)
    assert ("before a machine can be ready" in capsys.readouterr().err) == (gap_seconds <= 180)


def test_zones_that_never_have_machines_leave_on_demand(tmp_path: Path, capsys) -> None:
    asked = ("--trace", trace_of(tmp_path, [0] * 20, [0] * 20), "--log-format", "json")
    assert simulate(*asked) == 0
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    outcomes = event["together"]["outcomes"]
    assert outcomes["steady"]["availability"] == outcomes["steady"]["on_demand_share"] == 1.0
    assert outcomes["spread"]["capacity"] == outcomes["spread"]["cost"] == 0.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--policy", "hope"), "expected one of on-demand, spread"),
        (("--availability", "1"), "availability is 1"),
        (("--machines", "0"), "machines is 0"),
        (("--trace", "/nowhere"), "holds no traces"),
        (("--replicas", "0"), "replicas is 0"),
        (("--cold-start-s", "72000"), "The trace of generated ends after 72000 s"),
        (("--look-s", "80000"), "a look comes every 80000 s"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_exit_code_2(wrong, said: str, capsys) -> None:
    assert simulate(*SHORT, *wrong) == 2
    assert said in capsys.readouterr().err
