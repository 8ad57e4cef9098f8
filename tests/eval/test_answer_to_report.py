"""answer → judge → report through the public commands, against a scripted endpoint."""

import json
from pathlib import Path

import pytest

from apps.common.command.cli import run
from apps.eval.__main__ import COMMANDS
from tests.eval.scripted_judge import Script

QUESTIONS = [
    {
        "question_id": "capital",
        "category": "knowledge",
        "turns": ["What is the capital of France?", "And of Italy?"],
        "reference": ["Paris", "Rome"],
        "match": "exact",
    },
    {
        "question_id": "sum",
        "category": "math",
        "turns": ["What is 2 plus 3?"],
        "reference": ["5"],
        "match": "exact",
    },
]
KNOWN = {"France": "Paris", "Italy": "Rome", "2 plus 3": "5"}


def contestant(model: str, messages: list[dict[str, str]]) -> str:
    if model == "base":
        return "the the the"
    return next(answer for key, answer in KNOWN.items() if key in messages[-1]["content"])


def evaluate(*arguments: str) -> int:
    return run("apps.eval", COMMANDS, [*arguments, "--log-format", "json"])


@pytest.fixture
def folder(tmp_path: Path, serve) -> Path:
    """Questions answered by a base and a tuned model."""
    endpoint = serve(Script(answer=contestant))
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
    out = tmp_path / "eval"
    command = ["answer", "--questions", str(questions), "--out", str(out), "--model"]
    command += [f"base={endpoint.url}", f"tuned={endpoint.url}"]
    assert evaluate(*command) == 0
    assert endpoint.requests.total() == 6
    assert evaluate(*command) == 0
    assert endpoint.requests.total() == 6, "answers are kept"
    return out


@pytest.mark.ray
def test_the_offline_judge_prefers_the_right_model(folder: Path, ray_address: str) -> None:
    assert evaluate("judge", str(folder)) == 0
    assert evaluate("report", str(folder)) == 0
    report = json.loads((folder / "report.json").read_text())
    rates = {name: model["accuracy"]["rate"] for name, model in report["models"].items()}
    assert rates == {"base": 0.0, "tuned": 1.0}
    result = report["protocols"]["pairwise-swap"]
    assert result["preference"]["preferred"] == "tuned"
    assert result["preference"]["win"] == 2
    assert "not GPT-4" in result["judge_labels"][0]
    assert report["is_offline_judge_used"]
    assert "not GPT-4" in (folder / "report.html").read_text()
    (parsed,) = (folder / "judgments").glob("parsed-*.jsonl")
    before = parsed.read_bytes()
    parsed.unlink()
    assert evaluate("reparse", str(folder)) == 0
    assert parsed.read_bytes() == before, "read again from what is stored"


def test_a_dry_run_says_what_it_would_cost_and_sends_nothing(folder: Path, serve, capsys) -> None:
    endpoint = serve(Script())
    prices = ("--usd-per-million-prompt-tokens", "30", "--usd-per-million-completion-tokens", "60")
    asked = ("--judge", "judge-4", "--requests-per-min", "10", "--dry-run", *prices)
    capsys.readouterr()
    assert evaluate("judge", str(folder), *asked) == 0
    forecast, told = map(json.loads, capsys.readouterr().out.splitlines())
    assert "questions give a win rate to" in forecast["text"]
    assert told["event"] == "judge.plan" and told["calls"] > 4, "self-checks and canaries too"
    assert 0 < told["usd"] < told["usd_at_most"] and told["minutes"] >= told["calls"] / 10
    assert not endpoint.requests and not (folder / "judgments").exists()


def test_questions_cannot_change_under_a_folder(folder: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"question_id": 1, "text": "q", "category": "c"}\n')
    command = ["answer", "--questions", str(other), "--out", str(folder), "--model", "a=http://x"]
    assert evaluate(*command) == 2
    assert "give another --out" in capsys.readouterr().err
