"""An evaluation whose folder is a bucket: what a lost machine leaves behind is all that it paid."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from apps.common.files import parts, storage
from apps.eval.calls import journal
from apps.eval.calls.lines import charged_usd
from apps.eval.judging.prices import Price, price_of
from apps.eval.records.question import BUILT_IN, load_questions
from benchmarks.judge import PRICE, planned, unanswered, verdicts
from tests.eval import one_run
from tests.eval.commands import command
from tests.eval.scripted_judge import Endpoint, Script, respond
from tests.eval.test_answer_to_report import QUESTIONS, contestant
from tests.eval.test_kill import LIMITS

EVAL_YAML = Path(__file__).resolve().parents[2] / "cluster" / "eval.yaml"
JUDGE, JUDGE_NOT_STORED = "gpt-4o", 2 * 32
IN_FLIGHT = 4
NOT_STORED = 2 * IN_FLIGHT
"""with the endpoint, or answered and on their way to the bucket"""
NUM_CALLS = 40


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"eval-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=name)
    return f"s3://{name}"


def paid_twice(served: Endpoint) -> int:
    return served.served.total() - len(served.served)


def test_answers_are_kept_in_a_bucket(bucket: str, tmp_path: Path, serve) -> None:
    served = serve(Script(answer=contestant))
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    asked = ["answer", "--questions", str(questions), "--out", f"{bucket}/eval"]
    for _ in range(2):
        assert command(*asked, "--model", f"base={served.url}", f"tuned={served.url}") == 0
        assert served.requests.total() == 6
    answers = answers_in(f"{bucket}/eval", "tuned")
    assert set(answers) == {"capital", "sum"}
    imported = tmp_path / "tuned.jsonl"
    imported.write_text(json.dumps({"question_id": "sum", "text": "five"}) + "\n")
    assert command(*asked, "--answers", f"tuned={imported}") == 0
    answers = answers_in(f"{bucket}/eval", "tuned")
    assert {name: one["turn_texts"] for name, one in answers.items()} == {"sum": ["five"]}


def test_of_two_runs_that_ask_one_model_for_a_bucket_the_newer_goes_on(
    bucket: str, tmp_path: Path, serve, capsys
) -> None:
    served = serve(Script(answer=contestant, holds_after=0))
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    asked = ["answer", "--questions", str(questions), "--out", f"{bucket}/eval"]
    asked += ["--model", f"base={served.url}"]
    with ThreadPoolExecutor() as pool:
        first = pool.submit(command, *asked)
        while not served.in_flight:
            time.sleep(0.02)
        second = pool.submit(command, *asked)
        while served.in_flight <= len(QUESTIONS):
            time.sleep(0.02)
        served.script.holds_after = None
        assert (first.result(60), second.result(60)) == (2, 0)
    assert "this one stops" in capsys.readouterr().err
    assert len(answers_in(f"{bucket}/eval", "base")) == len(QUESTIONS)


def answers_in(folder: str, model: str) -> dict[str, dict[str, Any]]:
    """By question, each of which has one line."""
    lines = (parts.read(f"{folder}/answers/{model}.jsonl") or b"").splitlines()
    answers = {record["question_id"]: record for record in map(json.loads, lines)}
    assert len(answers) == len(lines)
    return answers


def test_no_answer_in_a_bucket_is_paid_twice_though_the_command_is_killed(
    bucket: str, tmp_path: Path, serve
) -> None:
    questions = tmp_path / "questions.jsonl"
    turns = {n: [f"Tell me about item {n}.", "And its price?"] for n in range(NUM_CALLS)}
    lines = [
        json.dumps({"question_id": n, "category": "generic", "turns": turns[n]}) for n in turns
    ]
    questions.write_text("\n".join(lines))
    served = serve(Script(latency_s=0.2, holds_after=NUM_CALLS))
    asked = ["answer", "--questions", str(questions), "--concurrency", str(IN_FLIGHT)]
    asked += ["--model", f"tuned={served.url}", "--out"]
    killed(
        eval_command([*asked, f"{bucket}/eval"]),
        lambda: len(answers_in(f"{bucket}/eval", "tuned")) >= NUM_CALLS // 4,
    )
    served.script.holds_after = None
    stored = answers_in(f"{bucket}/eval", "tuned")
    assert len(stored) < NUM_CALLS
    assert command(*asked, f"{bucket}/eval") == 0
    answers = answers_in(f"{bucket}/eval", "tuned")
    assert len(answers) == NUM_CALLS and stored.items() <= answers.items()
    assert paid_twice(served) <= 2 * NOT_STORED, "conversations of two turns"
    for name in ("prompt_tokens", "completion_tokens"):
        counted = sum(usage[name] for usage in served.usage.values())
        assert sum(answer["usage"][name] for answer in answers.values()) == counted
    serve(Script())
    assert command(*asked, str(tmp_path / "undisturbed")) == 0
    undisturbed = answers_in(str(tmp_path / "undisturbed"), "tuned")
    assert {n: one["turn_texts"] for n, one in answers.items()} == {
        n: one["turn_texts"] for n, one in undisturbed.items()
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_judgment_in_a_bucket_is_paid_twice_though_the_command_is_killed(
    bucket: str, tmp_path: Path, serve
) -> None:
    folder = f"{bucket}/eval"
    calls = planned(folder, NUM_CALLS)
    served = serve(Script(latency_s=0.3, holds_after=NUM_CALLS // 2))
    asked = ["judge", folder, "--judge", "judge-4", "--concurrency", str(IN_FLIGHT), *LIMITS]
    killed(eval_command(asked), lambda: len(journal.read_raw(folder)) >= NUM_CALLS // 4)
    served.script.holds_after = None
    stored = {record["key"] for record in journal.read_raw(folder)}
    assert len(stored) < NUM_CALLS
    again = subprocess.run(eval_command(asked), capture_output=True, text=True, timeout=200)
    assert again.returncode == 0, again.stderr
    records = journal.read_raw(folder)
    assert stored <= {record["key"] for record in records}
    assert len({record["key"] for record in records}) == len(records) == NUM_CALLS
    assert paid_twice(served) <= len(unanswered(folder)) <= NOT_STORED
    charged = counted_usd(folder, served, PRICE)
    told = [json.loads(line) for line in again.stdout.splitlines()]
    (made,) = [event for event in told if event["event"] == "judge.calls"]
    assert made["usd"] == pytest.approx(charged, abs=1e-4)
    serve(Script())
    asyncio.run(one_run.judge(calls, tmp_path / "undisturbed"))
    assert verdicts(folder) == verdicts(str(tmp_path / "undisturbed"))
    assert command("report", folder) == 0
    assert storage.read_json(f"{folder}/report.json")["protocols"]["pairwise-swap"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_task_of_the_cluster_goes_on_where_its_lost_machine_stopped(
    bucket: str, tmp_path: Path, serve
) -> None:
    """What cluster/eval.yaml runs, as it stands, each command with a Ray of its own."""
    of_two_models = 2 * len(load_questions(BUILT_IN))
    served = serve(Script(latency_s=0.3, answer=answer, holds_after=of_two_models + 2 * NUM_CALLS))
    script = yaml.safe_load(EVAL_YAML.read_text())["run"].replace("cluster/run_ray.sh ", "")
    given = {"BUCKET": bucket, "MODEL_URL": served.url, "MAX_USD": "20"}
    given |= {"BASELINE": "gpt-4o-mini", "JUDGE": JUDGE, "SKYPILOT_TASK_ID": "task"}
    given["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, **given}
    folder = f"{bucket}/eval"
    task = ["bash", "-c", script]
    killed(task, lambda: len(journal.read_raw(folder)) >= NUM_CALLS, env, is_machine=True)
    served.script.holds_after = None
    asked_before = {body for body in served.served if json.loads(body)["model"] != JUDGE}
    assert subprocess.run(task, env=env, timeout=280).returncode == 0
    assert asked_before == {body for body in served.served if json.loads(body)["model"] != JUDGE}
    assert all(served.requests[body] == 1 for body in asked_before)
    records = journal.read_raw(folder)
    assert len({record["key"] for record in records}) == len(records)
    assert paid_twice(served) <= len(unanswered(folder)) <= JUDGE_NOT_STORED
    price = price_of(JUDGE)
    assert price and counted_usd(folder, served, price) <= 20
    assert storage.exists(f"{folder}/report.html")


def answer(model: str, messages: list[dict[str, str]]) -> str:
    return respond("judge-4" if model == JUDGE else model, messages)


def counted_usd(folder: str, served: Endpoint, price: Price) -> float:
    """The charge of the folder; its prices are the endpoint's own count."""
    judged = {body for body in served.served if json.loads(body)["model"] in (JUDGE, "judge-4")}
    true_usd = {
        body: price.usd(
            served.usage[body]["prompt_tokens"], served.usage[body]["completion_tokens"]
        )
        for body in judged
    }
    records = journal.read_raw(folder)
    assert sum(record["usd"] for record in records) == pytest.approx(sum(true_usd.values()))
    charged = sum(map(charged_usd, records)) + sum(unanswered(folder).values())
    assert charged >= sum(true_usd[body] * served.served[body] for body in judged) - 1e-9
    return charged


def eval_command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "apps.eval", *arguments, "--log-format", "json"]


def killed(
    words: list[str],
    is_time: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    *,
    is_machine: bool = False,
) -> None:
    """Runs a command until it is time for kill -9, and until its Ray has ended too.

    Its endpoint holds replies back, so that it cannot end before, however slow the looks are.
    `is_machine`: all that it started is killed in the same moment.
    """
    process = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline_s = time.monotonic() + 200
    while not is_time():
        assert process.poll() is None, "it ended before the kill"
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    folders = {name for child in children for name in ray_folders(child)}
    os.killpg(process.pid, signal.SIGKILL) if is_machine else process.kill()
    process.wait()
    while any(is_alive(child) for child in children if not is_agent(child)):
        time.sleep(0.1)
    for child in filter(is_alive, children):
        child.kill()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def is_alive(child: psutil.Process) -> bool:
    """A zombie is only waiting for whoever inherited it."""
    try:
        return child.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_agent(child: psutil.Process) -> bool:
    """Ray's agents send no calls, and take half a minute to see that their machine has ended."""
    try:
        return "Agent" in " ".join(child.cmdline())
    except psutil.NoSuchProcess:
        return True


def ray_folders(child: psutil.Process) -> list[str]:
    return re.findall(r"/tmp/cria-ray-[^/\s]+", " ".join(child.cmdline()))
