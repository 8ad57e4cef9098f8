"""`report` beside an earlier run's folder."""

import json
from pathlib import Path

import pytest

from tests.eval.commands import command, jsonl


def judged(folder: Path, questions: dict[int, str], rating: int) -> str:
    """An evaluation folder in which a model's answers to `questions` have one rating."""
    bench = folder / "bench"
    bench.mkdir(parents=True)
    asked = [{"question_id": i, "turns": [text]} for i, text in questions.items()]
    jsonl(bench / "question.jsonl", asked)
    said = [{"question_id": i, "choices": [{"turns": ["Yes."]}]} for i in questions]
    jsonl(bench / "model_answer" / "m.jsonl", said)
    rated = [
        {"question_id": i, "model": "m", "judge": ["gpt-4", "v1"], "turn": 1}
        | {"user_prompt": f"{i}", "judgment": f"[[{rating}]]"}
        for i in questions
    ]
    jsonl(bench / "model_judgment" / "gpt-4_single.jsonl", rated)
    out = str(folder / "eval")
    assert command("replay", str(bench), "--out", out) == 0
    return out


def test_questions_of_other_words_under_the_same_id_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = judged(tmp_path / "before", {1: "Why?", 2: "How?"}, rating=3)
    now = judged(tmp_path / "now", {1: "Why?", 2: "When?"}, rating=8)
    assert command("report", now, "--previous", before) == 0
    assert "1 questions of" in capsys.readouterr().out
    report = json.loads(Path(now, "report.json").read_text())
    compared = report["protocols"]["mt-bench"]["comparison"]
    assert (compared["n"], compared["only_now"], compared["only_before"]) == (1, 1, 0)
    assert compared["models"]["m"]["before"] == 3


def test_an_earlier_run_that_shares_nothing_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = judged(tmp_path / "before", {1: "Why?"}, rating=3)
    now = judged(tmp_path / "now", {2: "When?"}, rating=8)
    assert command("report", now, "--previous", before) == 0
    assert "shares no judged question" in capsys.readouterr().out
