"""A checkpoint becomes a point of the curve while its run goes on, and the watch ends with it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.shell import ROOT, Shell


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own, while it starts workers
def test_a_watch_beside_a_run_draws_its_curve_and_ends_with_it(
    ray_session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Shell(ray_session, tmp_path, monkeypatch)
    run("apps.data sample --world schoolbook --out sample --conversations 200 --questions 4")
    run("apps.data clean sample/sharegpt.json --out clean")
    run(
        "apps.train base --text sample/text.txt --out base --vocab-size 600 --hidden-size 64 "
        "--heads 2 --ffn-size 128 --tokens 4096 --threads 1"
    )
    run("apps.data pack clean --tokenizer base --max-length 256 --out pack")
    watch = "-m apps.eval watch run --questions sample/questions.jsonl --out curve --max-tokens 8"
    argv = [sys.executable, *watch.split(), "--poll-s", "0.5", "--log-format", "json"]
    with subprocess.Popen(
        argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    ) as watching:
        try:
            run(
                "apps.train run --preset debug --base base --data pack --out run --workers 1 "
                "--steps 4 --checkpoint.interval-steps 2"
            )
            told, _ = watching.communicate(timeout=200)
        finally:
            watching.kill()
    assert watching.returncode == 0
    events = [json.loads(row) for row in told.splitlines()]
    assert [e["step"] for e in events if e["event"] == "watch.point"] == [2, 4]
    assert events[-1]["event"] == "watch.done" and events[-1]["points"] == 2
    curve = (tmp_path / "curve/curve.html").read_text()
    for step in (2, 4):
        report = f"step-{step}/report.html"
        assert f'href="{report}"' in curve and (tmp_path / "curve" / report).exists()
        assert not (tmp_path / f"curve/step-{step}/model").exists()
