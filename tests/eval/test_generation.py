"""A GPT's questions are kept if they are new, hard and not in the training data."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from apps.common.cli import run
from apps.common.schema import MESSAGE
from apps.eval.__main__ import COMMANDS
from apps.eval.questions import load_questions
from benchmarks.scripted_judge import Script

WRITTEN = [
    "How would you explain inflation to a child who collects stamps?",
    "How would you explain inflation to a child who collects stamps, please?",
    "Name the colour of the sky.",
    "Which trade-offs decide where a village should build its only well?",
    "Why do bridges hum in strong wind, and when is the hum a warning?",
]


def writer(model: str, messages: list[dict[str, str]]) -> str:
    prompt = messages[-1]["content"]
    if prompt.startswith("Write "):
        return f"Here they are:\n{json.dumps(WRITTEN)}"
    if model == "easy-model":
        return "Blue." if "sky" in prompt else "I do not know."
    return "rating [[10]]" if "Blue." in prompt else "rating [[3]]"


def test_questions_that_are_alike_easy_or_seen_are_dropped(tmp_path: Path, serve) -> None:
    endpoint = serve(Script(answer=writer))
    seen = [[{"role": "user", "content": WRITTEN[4]}]]
    table = pa.table({"messages": pa.array(seen, pa.list_(MESSAGE))})
    (tmp_path / "clean").mkdir()
    pq.write_table(table, tmp_path / "clean" / "part-00000.parquet")
    out = tmp_path / "questions.jsonl"
    command = ["questions", "generate", "--writer", "gpt-4o", "--category", "generic", "--out"]
    command += [str(out), "--per-category", "3", "--data", str(tmp_path / "clean")]
    command += ["--baseline", f"base={endpoint.url}#easy-model", "--log-format", "json"]
    assert run("apps.eval", COMMANDS, command) == 0
    assert [q.turns[0] for q in load_questions(str(out))] == [WRITTEN[0], WRITTEN[3]]


def test_the_built_in_set_is_written_out(tmp_path: Path) -> None:
    out = tmp_path / "questions.jsonl"
    assert run("apps.eval", COMMANDS, ["questions", "--out", str(out)]) == 0
    assert len(load_questions(str(out))) == 80


def test_an_unknown_category_is_refused(tmp_path: Path, serve, capsys) -> None:
    serve(Script(answer=writer))
    command = ["questions", "generate", "--category", "poetry", "--out", str(tmp_path / "q.jsonl")]
    assert run("apps.eval", COMMANDS, command) == 2
    assert "'poetry' is unknown" in capsys.readouterr().err
