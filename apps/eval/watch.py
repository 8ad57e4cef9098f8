"""`watch`: a point on the curve for every checkpoint of a training run, as it is committed.

    python -m apps.eval watch runs/vicuna --questions questions.jsonl --out curve/

Sees RUN/checkpoints/step-N with COMMITTED.json; exports it, serves it and evaluates it through the
public commands (`apps.train export`, `apps.serve run`, `answer`, `judge`, `report`). Writes
OUT/curve.jsonl, OUT/curve.html and OUT/step-N/ with the whole evaluation, and ends when the run's
last step is on the curve. Run again it goes on.
"""

import contextlib
import functools
import os
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Collection, Generator, Mapping
from typing import cast

import orjson
import yaml

from apps.common.command import process
from apps.common.command.events import Reporter
from apps.common.command.runtime import free_port, ray_session
from apps.common.errors import CriaError, InputError, NotFoundError
from apps.common.files import config as configs
from apps.common.files import parts, storage
from apps.common.files.schema import CHECKPOINTS_DIR, checkpoint_step
from apps.eval.config import JudgeConfig, WatchConfig
from apps.eval.judging.judges import find_judges
from apps.eval.page.curve import CurveLine, render_curve
from apps.eval.records.question import load_questions

Environment = Callable[[], dict[str, str]]
START_S = 300.0


def watch(config: WatchConfig, reporter: Reporter) -> None:
    load_questions(config.questions)
    find_judges(  # a judge that cannot be asked is refused before the first checkpoint is served
        JudgeConfig(
            dir=config.out,
            protocol=config.protocol,
            judge=(config.judge,),
            max_usd=config.max_usd,
        )
    )
    if config.once and not storage.exists(storage.join(config.run, configs.RESOLVED_NAME)):
        raise NotFoundError(
            f"{config.run} is not a run (it has no {configs.RESOLVED_NAME}); expected the --out of "
            "`python -m apps.train run`, or no --once to wait for it"
        )
    configs.write_resolved(config, config.out)
    with contextlib.ExitStack() as stack:
        # One Ray for the commands of all points, started when the first of them needs it.
        env = functools.cache(
            lambda: {**os.environ, **stack.enter_context(ray_session()).child_env()}
        )
        lost: set[int] = set()
        last_s = time.monotonic()
        while True:
            # Looked up after every point: a run deletes its older checkpoints as it goes.
            step = next_step(config, lost)
            if step is not None:
                if not _add_point(config, step, env, reporter):
                    lost.add(step)
                last_s = time.monotonic()
            elif config.once or is_finished(config.run) or _is_idle(config, last_s):
                reporter.event("watch.done", points=len(_points(config)))
                return
            else:
                time.sleep(config.poll_s)


def _is_idle(config: WatchConfig, last_s: float) -> bool:
    return time.monotonic() - last_s > config.max_idle_s


def next_step(config: WatchConfig, lost: Collection[int] = ()) -> int | None:
    """The oldest committed step that is not on the curve."""
    done = {point["step"] for point in _points(config)}.union(lost)
    return next((step for step in committed_steps(config.run) if step not in done), None)


def _add_point(config: WatchConfig, step: int, env: Environment, reporter: Reporter) -> bool:
    """Evaluates a step and draws the curve anew; False if its checkpoint is gone meanwhile."""
    try:
        point = _evaluate(config, step, env, reporter)
    except CriaError:
        if step in committed_steps(config.run):
            raise
        reporter.line(f"The run removed step {step} before it could be evaluated; skipped.")
        return False
    parts.append(_curve(config), orjson.dumps(point))
    points = sorted(_points(config), key=lambda p: p["step"])
    html = render_curve(points, config.run)
    storage.write_atomic(storage.join(config.out, "curve.html"), html.encode())
    reporter.event("watch.point", **point)
    return True


def _points(config: WatchConfig) -> list[CurveLine]:
    return cast(list[CurveLine], parts.records(_curve(config)))


def _curve(config: WatchConfig) -> str:
    return storage.join(config.out, "curve.jsonl")


def committed_steps(run: str) -> list[int]:
    """Steps whose checkpoint is complete, in order."""
    return sorted(_commits(run))


def is_finished(run: str) -> bool:
    """Whether the last step that the run will make is committed."""
    commits = _commits(run)
    if not commits:
        return False
    last = max(commits)
    identity = cast(Mapping[str, object], commits[last].get("identity", {}))
    return identity.get("num_steps") == last


def _commits(run: str) -> dict[int, dict[str, object]]:
    folder = storage.join(run, CHECKPOINTS_DIR)
    commits: dict[int, dict[str, object]] = {}
    for name in storage.list_dir(folder):
        step = checkpoint_step(name)
        commit = storage.read_commit(storage.join(folder, name)) if step is not None else None
        if step is not None and commit is not None:
            commits[step] = commit
    return commits


def _evaluate(config: WatchConfig, step: int, env: Environment, reporter: Reporter) -> CurveLine:
    folder = storage.join(config.out, f"step-{step}")
    model = storage.join(folder, "model")
    reporter.line(f"Evaluating step {step}.")
    storage.remove_tree(model)  # half of one, where an earlier watch was killed
    _command(
        dict(os.environ), "apps.train", "export", config.run, "--step", str(step), "--out", model
    )
    name = f"step-{step}"
    with _served(config, env(), folder, name, model) as url:
        asked = ["--questions", config.questions, "--out", folder, "--model", f"{name}={url}"]
        asked += ["--lineage", f"{name}={model}"]
        _command(env(), "apps.eval", "answer", *asked, "--max-tokens", str(config.max_tokens))
    judged = ["--protocol", config.protocol, "--judge", config.judge]
    if config.max_usd is not None:
        judged += ["--max-usd", str(config.max_usd)]
    _command(env(), "apps.eval", "judge", folder, *judged)
    _command(env(), "apps.eval", "report", folder, "--title", f"Step {step}")
    figures = storage.read_json(storage.join(folder, "report.json"))
    storage.remove_tree(model)
    scores = figures["protocols"][config.protocol]["scores"][name]
    return {
        "step": step,
        "score": scores["mean"],
        "low": scores["low"],
        "high": scores["high"],
        "n": scores["n"],
        "accuracy": figures["models"][name]["accuracy"],
        "judge": config.judge,
        "report": f"step-{step}/report.html",
    }


def _command(env: dict[str, str], *arguments: str) -> None:
    """One public command; what it says when it fails is the error's sentence."""
    command = [sys.executable, "-m", *arguments, "--log-format", "json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode == 0:
        return
    told = done.stderr.strip().splitlines()
    said = told[-1] if told else "it said nothing"
    if done.returncode == 2:
        command = " ".join(arguments[:2])
        raise InputError(f"`{command}` says: {said.partition(': ')[2] or said}")
    raise CriaError(
        f"`python -m {shlex.join(arguments)}` ended with exit code {done.returncode} ({said}); run "
        "it by hand to see all it says"
    )


@contextlib.contextmanager
def _served(
    config: WatchConfig, env: dict[str, str], folder: str, name: str, model: str
) -> Generator[str]:
    """The checkpoint behind `apps.serve run` on a free port of this machine."""
    settings = {
        "models": [{"name": name, "path": storage.absolute(model), "engine": config.engine}],
        "page": {"enabled": False},
    }
    file = storage.local_path(storage.join(folder, "serve.yaml"))
    storage.write_atomic(file, yaml.safe_dump(settings).encode())
    port = free_port()
    command = [sys.executable, "-m", "apps.serve", "run", file, "--port", str(port)]
    with (
        open(os.path.join(os.path.dirname(file), "serve.log"), "wb") as log,
        process.child(command, env, log) as server,
    ):
        _await_ready(server, f"http://127.0.0.1:{port}/ready", log.name)
        yield f"http://127.0.0.1:{port}/v1"


def _await_ready(server: subprocess.Popen[bytes], url: str, log: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise CriaError(f"the checkpoint could not be served; see {log}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:  # not listening yet, 503 until the model is loaded, or slow to answer
            time.sleep(0.5)
    raise CriaError(f"the checkpoint was not served within {START_S:.0f} s; see {log}")
