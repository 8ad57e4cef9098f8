"""A GPT's questions are kept if they are new, hard and not in the training data."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from apps.common.command.cli import run
from apps.common.files.schema import MESSAGE
from apps.eval.__main__ import COMMANDS
from apps.eval.records.question import load_questions
from tests.eval.scripted_judge import Script

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


def test_questions_that_are_alike_easy_or_seen_are_dropped(tmp_path, serve, capsys) -> None:
    endpoint = serve(Script(answer=writer, fault_share=0.2, faults=("429", "500", "garbage")))
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
    found = json.loads((tmp_path / "questions.contamination.json").read_text())
    assert [row["overlap"] for row in found["contaminated"]] == [1.0]
    assert endpoint.num_faults > 0, "a fault is no reason to give up"
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = [event for event in events if event["event"] == "questions.progress"][-1]
    assert told["done"] == 3 and told["last_failure"], "nor waited out in silence"


def test_coding_and_math_get_a_reference(tmp_path: Path, serve) -> None:
    def solver(model: str, messages: list[dict[str, str]]) -> str:
        prompt = messages[-1]["content"]
        return "It is 42." if prompt.startswith("Solve") else '["What is six times seven?"]'

    serve(Script(answer=solver))
    out = tmp_path / "questions.jsonl"
    command = ["questions", "generate", "--per-category", "1", "--out", str(out)]
    assert run("apps.eval", COMMANDS, [*command, "--category", "math", "fermi"]) == 0
    found = {q.category: q.reference for q in load_questions(str(out))}
    assert found == {"math": ("It is 42.",), "fermi": ()}


def test_a_writer_that_writes_nothing_usable_is_one_sentence(tmp_path, serve, capsys) -> None:
    serve(Script(answer=lambda model, messages: "I would rather not."))
    command = ["questions", "generate", "--category", "fermi", "--out", str(tmp_path / "q.jsonl")]
    assert run("apps.eval", COMMANDS, command) == 1
    assert "no question of gpt-4o was new" in capsys.readouterr().err
    assert not (tmp_path / "q.jsonl").exists()


def test_the_built_in_set_is_written_out(tmp_path: Path) -> None:
    out = tmp_path / "questions.jsonl"
    assert run("apps.eval", COMMANDS, ["questions", "--out", str(out)]) == 0
    assert len(load_questions(str(out))) == 80


def test_an_unknown_category_is_refused(tmp_path: Path, serve, capsys) -> None:
    serve(Script(answer=writer))
    command = ["questions", "generate", "--category", "poetry", "--out", str(tmp_path / "q.jsonl")]
    assert run("apps.eval", COMMANDS, command) == 2
    assert "'poetry' is unknown" in capsys.readouterr().err
