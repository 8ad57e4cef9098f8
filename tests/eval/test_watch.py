"""`watch` sees committed checkpoints only, and draws the curve of all it has evaluated."""

import json
from pathlib import Path

import pytest

from apps.common.command import cli
from apps.common.files import parts, storage
from apps.eval.__main__ import COMMANDS
from apps.eval.config import WatchConfig
from apps.eval.page.curve import render_curve
from apps.eval.watch import committed_steps, is_finished, next_step


def test_only_committed_checkpoints_are_evaluated_in_order(tmp_path: Path) -> None:
    for step in (1000, 20, 300):
        folder = tmp_path / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        storage.commit(str(folder), {"step": step})
    (tmp_path / "checkpoints" / "step-00000400").mkdir()
    (tmp_path / "checkpoints" / "notes").mkdir()
    assert committed_steps(str(tmp_path)) == [20, 300, 1000]
    assert committed_steps(str(tmp_path / "not-yet")) == []


def committed_run(folder: Path, *steps: int, num_steps: int = 300) -> Path:
    """A run's folder as a reader sees it, without weights."""
    for step in steps:
        checkpoint = folder / "checkpoints" / f"step-{step:08d}"
        checkpoint.mkdir(parents=True, exist_ok=True)
        storage.commit(str(checkpoint), {"step": step, "identity": {"num_steps": num_steps}})
    return folder


def watching(run: Path, out: Path, *flags: str) -> int:
    command = ["watch", str(run), "--questions", "built-in", "--out", str(out), *flags]
    return cli.run("apps.eval", COMMANDS, [*command, "--log-format", "json"])


def on_the_curve(out: Path, *steps: int) -> None:
    for step in steps:
        parts.append(str(out / "curve.jsonl"), json.dumps({"step": step}).encode())


def test_points_are_not_made_twice_and_a_finished_run_ends_the_watch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = committed_run(tmp_path / "run", 100, 200), tmp_path / "curve"
    config = WatchConfig(run=str(run), questions="built-in", out=str(out))
    on_the_curve(out, 100)
    assert next_step(config) == 200 and next_step(config, lost={200}) is None
    on_the_curve(out, 200)
    assert next_step(config) is None and not is_finished(str(run))
    committed_run(run, 300)
    assert next_step(config) == 300 and is_finished(str(run))
    on_the_curve(out, 300)
    assert watching(run, out) == 0, "ends by itself: nothing is left to come"
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["points"] == 3


@pytest.mark.slow
def test_a_run_of_an_old_config_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = committed_run(tmp_path / "run", 100)
    (run / "config.yaml").write_text("base: b\ndata: d\nwarp_factor: 9\n")
    assert watching(run, tmp_path / "curve", "--once") == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and "warp_factor" in told[0] and "apps.train export" in told[0]


def test_what_is_no_run_is_refused_at_once(tmp_path: Path, capsys) -> None:
    assert watching(tmp_path / "none", tmp_path / "curve", "--once") == 2
    assert "is not a run" in capsys.readouterr().err


@pytest.mark.parametrize("judge", ["http://127.0.0.1:9/v1", "own=http://127.0.0.1:9/v1#m"])
def test_a_judge_that_cannot_be_asked_is_refused_before_a_checkpoint_is_served(
    tmp_path: Path, capsys, judge: str
) -> None:
    run, out = committed_run(tmp_path / "run", 300), tmp_path / "curve"
    assert watching(run, out, "--judge", judge, "--max-usd", "1") == 2
    told = capsys.readouterr().err
    assert not out.exists() and ("is neither the name of a model" in told or "price" in told)


def test_the_curve_links_every_report_and_says_who_judged() -> None:
    points = [
        {
            "step": step,
            "score": 1.0 + step / 100,
            "low": 1.0,
            "high": 9.0,
            "n": 20,
            "accuracy": {
                "rate": share / 20,
                "low": 0.1,
                "high": 0.9,
                "correct": share,
                "total": 20,
            },
            "judge": "offline",
            "report": f"step-{step}/report.html",
        }
        for step, share in ((100, 4), (200, 14))
    ]
    html = render_curve(points, "runs/<b>x")
    assert html.count("<polyline") == 2 and 'href="step-200/report.html"' in html
    assert "not GPT-4" in html and "<b>x" not in html and "14 of 20" in html
