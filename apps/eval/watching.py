"""`watch`: a point on the curve for every checkpoint of a training run, as it is committed.

    python -m apps.eval watch runs/vicuna --questions questions.jsonl --out curve/

Sees RUN/checkpoints/step-N with COMMITTED.json; exports it, serves it and evaluates it through the
public commands (`apps.train export`, `apps.serve run`, `answer`, `judge`, `report`). Writes
OUT/curve.jsonl, OUT/curve.html and OUT/step-N/ with the whole evaluation. Run again it goes on.
"""

import contextlib
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import orjson
import yaml

from apps.common import config as configs
from apps.common import storage
from apps.common.errors import CriaError
from apps.common.events import Reporter
from apps.common.runtime import free_port
from apps.common.schema import CHECKPOINTS_DIR
from apps.eval import page
from apps.eval.config import WatchConfig
from apps.eval.journal import read_lines

START_S = 300.0
_STEP = re.compile(r"step-0*(\d+)")


def watch(config: WatchConfig, reporter: Reporter) -> None:
    configs.write_resolved(config, config.out)
    last_s = time.monotonic()
    while True:
        done = {point["step"] for point in read_lines(_curve(config))}
        new = [step for step in committed_steps(config.run) if step not in done]
        for step in new:
            point = _evaluate(config, step, reporter)
            storage.append_line(_curve(config), orjson.dumps(point))
            points = sorted(read_lines(_curve(config)), key=lambda p: p["step"])
            html = page.render_curve(points, config.run)
            storage.write_atomic(storage.join(config.out, "curve.html"), html.encode())
            reporter.event("watch.point", **point)
            last_s = time.monotonic()
        if config.once or time.monotonic() - last_s > config.max_idle_s:
            reporter.event("watch.done", points=len(read_lines(_curve(config))))
            return
        time.sleep(config.poll_s)


def _curve(config: WatchConfig) -> str:
    return storage.join(config.out, "curve.jsonl")


def committed_steps(run: str) -> list[int]:
    """Steps whose checkpoint is complete, in order."""
    folder = storage.join(run, CHECKPOINTS_DIR)
    steps = []
    for name in storage.list_dir(folder):
        found = _STEP.fullmatch(name)
        if found and storage.read_commit(storage.join(folder, name)) is not None:
            steps.append(int(found[1]))
    return sorted(steps)


def _evaluate(config: WatchConfig, step: int, reporter: Reporter) -> dict[str, Any]:
    folder = storage.join(config.out, f"step-{step}")
    model = storage.join(folder, "model")
    reporter.line(f"Evaluating step {step}.")
    _command("apps.train", "export", config.run, "--step", str(step), "--out", model)
    name = f"step-{step}"
    with _served(config, folder, name, model) as url:
        asked = ["--questions", config.questions, "--out", folder, "--model", f"{name}={url}"]
        _command("apps.eval", "answer", *asked, "--max-tokens", str(config.max_tokens))
    judged = ["--protocol", config.protocol, "--judge", config.judge]
    if config.max_usd is not None:
        judged += ["--max-usd", str(config.max_usd)]
    _command("apps.eval", "judge", folder, *judged)
    _command("apps.eval", "report", folder, "--title", f"Step {step}")
    figures = storage.read_json(storage.join(folder, "report.json"))
    storage.remove_tree(model)
    scores = figures["protocols"][config.protocol]["scores"][name]
    accuracy = figures["models"][name]["accuracy"]
    return {
        "step": step,
        "score": scores["mean"],
        "low": scores["low"],
        "high": scores["high"],
        "n": scores["n"],
        "accuracy": accuracy["rate"] if accuracy else None,
        "judge": config.judge,
        "report": f"step-{step}/report.html",
    }


def _command(*arguments: str) -> None:
    """One public command; its own sentence is the error's."""
    command = [sys.executable, "-m", *arguments, "--log-format", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        told = done.stderr.strip().splitlines()
        raise CriaError(f"`{' '.join(arguments[:2])}` failed: {told[-1] if told else 'no message'}")


@contextlib.contextmanager
def _served(config: WatchConfig, folder: str, name: str, model: str) -> Iterator[str]:
    """The checkpoint behind `apps.serve run` on a free port of this machine."""
    settings = {"models": [{"name": name, "path": model, "engine": config.engine}]}
    file = storage.local_path(storage.join(folder, "serve.yaml"))
    storage.write_atomic(file, yaml.safe_dump(settings).encode())
    port = free_port()
    command = [sys.executable, "-m", "apps.serve", "run", file, "--port", str(port)]
    with open(os.path.join(os.path.dirname(file), "serve.log"), "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            _await_ready(server, f"http://127.0.0.1:{port}/ready", log.name)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _await_ready(server: subprocess.Popen[bytes], url: str, log: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise CriaError(f"the checkpoint could not be served; see {log}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    raise CriaError(f"the checkpoint was not served within {START_S:.0f} s; see {log}")
