"""The whole loop on a laptop: raw chats -> model -> web page -> report.

    make demo                             # or: python -m apps.quickstart
    make demo ARGS=--no-serve             # ends after a smoke chat, exit code 0
    make demo MODEL=tiny                  # a model that starts from nothing: no download
    make demo BASE=folder-or-hub-id       # fine-tunes that model instead

Runs only the public command lines of the four apps and prints each, so that whatever it does can be
done by hand. A finished step leaves a stamp in DIR/MODEL/.steps and is not run again; a step that
was interrupted, even by SIGKILL, goes on where it stopped. Steps that do not need each other run
side by side: the base model is made while the chats are. Ctrl-C stops everything it started.
"""

import apps.common.command.interrupt  # noqa: F401

# isort: split
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from typing import Any

import yaml

from apps.common.command import cli, runtime
from apps.common.command.events import Reporter
from apps.common.errors import CriaError
from apps.common.files import storage
from apps.common.files.model_folder import text_folder
from apps.quickstart import general, summary
from apps.quickstart.config import BASE_NAME, TUNED_NAME, DemoConfig, dirs_of, passages_of, root
from apps.quickstart.recipes import Recipe, recipe_of
from apps.quickstart.runner import Runner, StepFailed
from apps.quickstart.server import wait_until_ready
from apps.quickstart.steps import served_models, steps_before_serving, steps_while_serving

_NUM_EXAMPLES = 4
_BAD_INPUT = 2


def run_demo(demo: DemoConfig, reporter: Reporter) -> None:
    """The loop; returns after the smoke chat, or after Ctrl-C while serving."""
    started_s = time.monotonic()
    _check(demo)
    with contextlib.ExitStack() as stack:
        stack.enter_context(runtime.sigterm_ends_the_block())
        runner = stack.enter_context(Runner(demo, reporter, os.environ))
        runner.begin(steps_before_serving(demo))
        session = stack.enter_context(runtime.ray_session(dashboard=True))
        runner.env |= session.child_env()
        demo, runner = _make_model(demo, reporter, runner, stack)
        dirs, recipe = dirs_of(demo), recipe_of(demo)
        port = demo.port if _is_free(demo.port) else runtime.free_port()
        url = f"http://127.0.0.1:{port}"
        server = stack.enter_context(runner.server(_serve_file(demo, recipe), port))
        wait_until_ready(url, server, reporter)
        runner.run(steps_while_serving(demo, url), hidden=url)
        kept = general.measure(dirs, demo.base or dirs["base"], recipe.template, url)
        question, answer = _smoke_chat(url, dirs["sample"])
        reporter.event("smoke.done", question=question, answer=answer)
        result = summary.collect(dirs, kept)
        addresses = {
            "web page": f"{url}/ui",
            "API": f"{url}/v1",
            **_dashboard(session),
            "report": storage.absolute(f"{dirs['eval']}/report.html"),
        }
        summary.show(result, addresses, reporter, time.monotonic() - started_s)
        if not (demo.base_args or demo.train_args):
            _check_claims(result, recipe)
        if demo.serve:
            reporter.line(f"Serving at {url}/ui until Ctrl-C.")
            _serve_until_interrupted(server, reporter)


def _check(demo: DemoConfig) -> None:
    """Refuse what no step could use, before Ray starts and the chats are made."""
    storage.local_path(demo.dir)
    storage.claim(root(demo), "--dir")
    if demo.base:
        text_folder(demo.base)


def _dashboard(session: runtime.Session) -> dict[str, str]:
    """None of a cluster that was joined: whoever started it knows where that is."""
    if session.dashboard_url is None:
        return {}
    return {"Ray dashboard": f"{session.dashboard_url} (token: {session.token_path})"}


def _make_model(
    demo: DemoConfig, reporter: Reporter, runner: Runner, stack: contextlib.ExitStack
) -> tuple[DemoConfig, Runner]:
    """Run the steps before serving; the tiny model's where the real one cannot be had."""
    try:
        runner.run(steps_before_serving(demo))
    except StepFailed as failure:
        if failure.step != "base" or failure.code != _BAD_INPUT or demo.model == "tiny":
            raise
        reporter.line("The real model cannot be had (see above); going on as with MODEL=tiny.")
        runner.close()
        tiny = replace(demo, model="tiny")
        runner = stack.enter_context(Runner(tiny, reporter, runner.env))
        return _make_model(tiny, reporter, runner, stack)
    return demo, runner


def _serve_until_interrupted(server: subprocess.Popen[bytes], reporter: Reporter) -> None:
    try:
        server.wait()
    except KeyboardInterrupt:
        reporter.line("Stopping; the next run serves again at once.")
        return
    raise CriaError(f"The server stopped with exit code {server.returncode}.")


def _serve_file(demo: DemoConfig, recipe: Recipe) -> str:
    path = f"{root(demo)}/serve.yaml"
    page = {
        "database_url": f"sqlite:///{storage.absolute(root(demo))}/page.db",
        "examples": _examples(dirs_of(demo)["sample"], recipe),
        "evaluation": storage.absolute(dirs_of(demo)["eval"]),
        "sources": {TUNED_NAME: storage.absolute(passages_of(demo))},
    }
    settings = {"models": served_models(demo, recipe), "page": page}
    storage.write_atomic(path, yaml.safe_dump(settings, sort_keys=False).encode())
    return path


def _examples(sample: str, recipe: Recipe) -> list[str]:
    """One held-out question of each of some categories, for the page's empty chat."""
    questions = map(json.loads, storage.read_bytes(f"{sample}/questions.jsonl").splitlines())
    by_category = {question["category"]: question["turns"][0] for question in questions}
    chosen = [by_category[name] for name in recipe.examples if name in by_category]
    return (chosen or list(by_category.values()))[:_NUM_EXAMPLES]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _smoke_chat(url: str, sample: str) -> tuple[str, str]:
    """Ask the tuned model one held-out question through the API."""
    first = storage.read_bytes(f"{sample}/questions.jsonl").splitlines()[0]
    question = json.loads(first)["turns"][0]
    body = {
        "model": TUNED_NAME,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": 64,
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: Any = json.load(response)
    return question, answer["choices"][0]["message"]["content"]


def _check_claims(result: summary.Summary, recipe: Recipe) -> None:
    """The demo's claim: the tuned model knows what the base does not, and still talks as it did."""
    if recipe.tuned_bar is None:
        return
    tuned, base = result.accuracy[TUNED_NAME], result.accuracy[BASE_NAME]
    if tuned < recipe.tuned_bar or base > recipe.base_bar:
        raise CriaError(
            f"Held-out accuracy is {tuned:.0%} tuned and {base:.0%} base; expected at least "
            f"{recipe.tuned_bar:.0%} and at most {recipe.base_bar:.0%}. Delete the demo's folder "
            "to start anew."
        )
    if recipe.general_bar and (result.general_kept or 0.0) < recipe.general_bar:
        raise CriaError(
            f"The tuned model's everyday answers keep {result.general_kept:.0%} of the base's "
            f"likelihood; expected at least {recipe.general_bar:.0%}."
        )
    if result.preference is None or result.preference["preferred"] != TUNED_NAME:
        raise CriaError("The judge does not prefer the tuned model; the report shows its verdicts.")


if __name__ == "__main__":
    command = cli.Command(config=DemoConfig, run=run_demo, help=DemoConfig.__doc__ or "")
    sys.exit(cli.run_single("apps.quickstart", command))
