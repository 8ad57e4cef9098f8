"""`watch` sees committed checkpoints only, and draws the curve of all it has evaluated."""

from pathlib import Path

from apps.common import storage
from apps.eval.page import render_curve
from apps.eval.watching import committed_steps


def test_only_committed_checkpoints_are_evaluated_in_order(tmp_path: Path) -> None:
    for step in (1000, 20, 300):
        folder = tmp_path / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        storage.commit(str(folder), {"step": step})
    (tmp_path / "checkpoints" / "step-00000400").mkdir()
    (tmp_path / "checkpoints" / "notes").mkdir()
    assert committed_steps(str(tmp_path)) == [20, 300, 1000]
    assert committed_steps(str(tmp_path / "not-yet")) == []


def test_the_curve_links_every_report_and_says_who_judged() -> None:
    points = [
        {
            "step": step,
            "score": 1.0 + step / 100,
            "low": 1.0,
            "high": 9.0,
            "n": 20,
            "accuracy": accuracy,
            "judge": "offline",
            "report": f"step-{step}/report.html",
        }
        for step, accuracy in ((100, 0.2), (200, 0.7))
    ]
    html = render_curve(points, "runs/<b>x")
    assert html.count("<polyline") == 2 and 'href="step-200/report.html"' in html
    assert "not GPT-4" in html and "<b>x" not in html
