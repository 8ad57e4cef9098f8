"""The whole loop on a laptop: raw chats -> model -> web page -> report.

    make demo                             # or: python -m apps.quickstart
    make demo ARGS=--no-serve             # ends after a smoke chat, exit code 0
    make demo BASE=folder-or-hub-id       # fine-tunes that model instead of the built-in one

Runs only the public command lines of the four apps and prints each, so that whatever it does can be
done by hand. A finished step leaves a stamp in DIR/.steps and is not run again; a step that was
interrupted, even by SIGKILL, goes on where it stopped. Ctrl-C stops everything it started.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from typing import Any

import yaml

import apps.common.command.interrupt  # noqa: F401
from apps.common.command import cli, runtime
from apps.common.command.events import Reporter
from apps.common.errors import CriaError
from apps.common.files import storage
from apps.quickstart import summary
from apps.quickstart.runner import Runner
from apps.quickstart.steps import (
    BASE_NAME,
    TUNED_NAME,
    DemoConfig,
    places,
    root,
    steps_before_serving,
    steps_while_serving,
)

_READY_TIMEOUT_S = 120.0
_NUM_EXAMPLES = 4
_TUNED_BAR = 0.80
_BASE_BAR = 0.10


def run_demo(demo: DemoConfig, reporter: Reporter) -> None:
    """The loop; returns after the smoke chat, or after Ctrl-C while serving."""
    started_s = time.monotonic()
    at = places(demo)
    with runtime.ray_session(dashboard=True) as session:
        runner = Runner(demo, reporter, env={**os.environ, **session.child_env()})
        for step in steps_before_serving(demo):
            runner.run(step)
        port = demo.port if _is_free(demo.port) else runtime.free_port()
        url = f"http://127.0.0.1:{port}"
        with runner.server(_serve_file(demo), port) as server:
            _wait_until_ready(url, server)
            for step in steps_while_serving(demo, url):
                runner.run(step, key_arguments=tuple(a.replace(url, "") for a in step.arguments))
            question, answer = _smoke_chat(url, at["sample"])
            reporter.event("smoke.done", question=question, answer=answer)
            result = summary.collect(at)
            addresses = {
                "web page": f"{url}/ui",
                "API": f"{url}/v1",
                "Ray dashboard": f"{session.dashboard_url} (token: {session.token_path})",
                "report": storage.absolute(f"{at['eval']}/report.html"),
            }
            summary.show(result, addresses, reporter, time.monotonic() - started_s)
            if not demo.base and not demo.train_args:
                _check(result)
            if demo.serve:
                reporter.line(f"Serving at {url}/ui until Ctrl-C.")
                _serve_until_interrupted(server, reporter)


def _serve_until_interrupted(server: subprocess.Popen[bytes], reporter: Reporter) -> None:
    try:
        server.wait()
    except KeyboardInterrupt:
        reporter.line("Stopping; the next run serves again at once.")
        return
    raise CriaError(f"The server stopped with exit code {server.returncode}.")


def _serve_file(demo: DemoConfig) -> str:
    at = places(demo)
    base = demo.base or at["base"]
    path = f"{root(demo)}/serve.yaml"
    models = [  # the page opens on the last one
        {
            "name": BASE_NAME,
            "path": storage.absolute(base) if os.path.isdir(base) else base,
            "template": "vicuna-v1.1",
        },
        {"name": TUNED_NAME, "path": storage.absolute(at["model"])},
    ]
    page = {
        "votes_url": f"sqlite:///{storage.absolute(root(demo))}/votes.db",
        "examples": _first_questions(at["sample"]),
    }
    settings = {"models": models, "page": page}
    storage.write_atomic(path, yaml.safe_dump(settings, sort_keys=False).encode())
    return path


def _first_questions(sample: str) -> list[str]:
    """One held-out question of each of the first categories, for the page's empty chat."""
    questions = map(json.loads, storage.read_bytes(f"{sample}/questions.jsonl").splitlines())
    by_category = {question["category"]: question["turns"][0] for question in questions}
    return list(by_category.values())[:_NUM_EXAMPLES]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if server.poll() is not None:
            raise CriaError(f"The server stopped with exit code {server.returncode}; see above.")
        if _answers(f"{url}/ready"):
            return
        time.sleep(0.25)
    raise CriaError(f"{url} was not ready within {_READY_TIMEOUT_S:.0f} s; see the messages above.")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


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


def _check(result: summary.Summary) -> None:
    """The demo's claim: the tuned model knows what the base does not."""
    tuned, base = result.accuracy[TUNED_NAME], result.accuracy[BASE_NAME]
    if tuned < _TUNED_BAR or base > _BASE_BAR:
        raise CriaError(
            f"Held-out accuracy is {tuned:.0%} tuned and {base:.0%} base; expected at least "
            f"{_TUNED_BAR:.0%} and at most {_BASE_BAR:.0%}. Delete the demo's folder to start anew."
        )
    if result.preference is None or result.preference["preferred"] != TUNED_NAME:
        raise CriaError("The judge does not prefer the tuned model; the report shows its verdicts.")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    command = cli.Command(config=DemoConfig, run=run_demo, help=DemoConfig.__doc__ or "")
    sys.exit(cli.run_single("apps.quickstart", command))
