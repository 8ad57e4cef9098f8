"""MT-bench as it is published: two turns, references in a file of their own, a score a turn."""

import json
from pathlib import Path

from apps.eval.calls import journal
from tests.eval.commands import command, jsonl
from tests.eval.scripted_judge import Script

QUESTIONS = [
    {
        "question_id": 101,
        "category": "reasoning",
        "turns": ["Who is second when you pass the second?", "And when you pass the last?"],
    },
    {"question_id": 81, "category": "writing", "turns": ["Write about trains", "Now shorter"]},
]
REFERENCES = [
    {
        "question_id": 101,
        "choices": [{"turns": ["You are second now", "Nobody passes the last runner"]}],
    }
]
KNOWN = {"pass the second": "You are second now", "pass the last": "Nobody is first"}


def contestant(model: str, messages: list[dict[str, str]]) -> str:
    asked = messages[-1]["content"]
    right = next((text for key, text in KNOWN.items() if key in asked), f"On {asked}")
    return right if model == "strong" else "Perhaps."


def test_two_turns_are_judged_one_by_one_beside_their_references(tmp_path: Path, serve) -> None:
    endpoint, out = serve(Script(answer=contestant)), tmp_path / "eval"
    asked = ["--questions", jsonl(tmp_path / "question.jsonl", QUESTIONS)]
    asked += ["--references", jsonl(tmp_path / "gpt-4.jsonl", REFERENCES), "--out", str(out)]
    asked += ["--model", f"strong={endpoint.url}", f"weak={endpoint.url}"]
    made_by = tmp_path / "lineage.json"
    made_by.write_text('{"git_commit": "abc", "loss": 1.5}')
    assert command("answer", *asked, "--lineage", f"strong={made_by}") == 0
    second = [body for body in endpoint.bodies if len(body["messages"]) == 3]
    assert len(second) == 4 and all(b["messages"][1]["role"] == "assistant" for b in second)

    judged = ["judge", str(out), "--protocol", "mt-bench", "--judge", "judge-4"]
    assert command(*judged, "--no-canaries", "--backend", "batch", "--batch-poll-s", "0.1") == 0
    records = journal.read_raw(str(out))
    assert sorted((r["models"][0], r["question_id"], r["turn"]) for r in records) == [
        (model, question, turn)
        for model in ("strong", "weak")
        for question in ("101", "81")
        for turn in (0, 1)
    ]
    prompts = [
        json.loads(line)["body"]["messages"][-1]["content"]
        for data in endpoint.files.values()
        for line in data.splitlines()
        if b'"body"' in line and b'"method"' in line
    ]
    with_reference = [text for text in prompts if "the reference answer" in text]
    assert len(prompts) == 8 and len(with_reference) == 4
    assert sum("Nobody passes the last runner" in text for text in with_reference) == 2

    assert command("report", str(out)) == 0
    figures = json.loads((out / "report.json").read_text())
    scores = figures["protocols"]["mt-bench"]["scores"]
    assert scores["strong"]["mean"] > scores["weak"]["mean"] and scores["strong"]["n"] == 4
    assert scores["strong"]["per_turn"].keys() == {"1", "2"}
    assert "Mean score by turn" in (out / "report.html").read_text()
    made = figures["manifest"]["models"]
    assert made["strong"]["lineage"] == {"git_commit": "abc", "loss": 1.5}
    assert made["weak"]["lineage"] is None and made["weak"]["sampling"][0]["max_tokens"] == 1024
