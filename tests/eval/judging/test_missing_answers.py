"""A chatbot that left questions out is judged on the rest, and every figure says n of N."""

import json
from pathlib import Path

import pytest

from tests.eval.commands import command, jsonl
from tests.eval.scripted_judge import Script


@pytest.mark.parametrize(
    ("protocol", "has_first_turn", "paid", "planned"),
    [
        ("pairwise-swap", False, 6, 8),
        ("pairwise-swap", True, 6, 8),
        ("single", True, 7, 8),
        ("mt-bench", False, 14, 16),
        ("mt-bench", True, 15, 16),
    ],
)
def test_missing_answers_are_refused_then_counted_then_filled_in(
    tmp_path: Path, serve, capsys, protocol: str, has_first_turn: bool, paid: int, planned: int
) -> None:
    endpoint, out = serve(Script()), tmp_path / "eval"
    asked = [
        {"question_id": f"q{i}", "category": "generic", "turns": [f"Item {i}", "And after it"]}
        for i in range(4)
    ]
    whole = [{"question_id": q["question_id"], "choices": [{"turns": q["turns"]}]} for q in asked]
    questions = ["--questions", jsonl(tmp_path / "q.jsonl", asked), "--out", str(out)]
    some = whole[:3]
    if has_first_turn:
        some.append({"question_id": "q3", "choices": [{"turns": asked[3]["turns"][:1]}]})
    full, part = (jsonl(tmp_path / "full.jsonl", whole), jsonl(tmp_path / "p.jsonl", some))
    assert command("answer", *questions, "--answers", f"full={full}", f"part={part}") == 0

    judge = ["judge", str(out), "--judge", "judge-4", "--no-canaries", "--self-checks", "0"]
    judge += ["--protocol", protocol, "--backend", "batch", "--batch-poll-s", "0.1"]
    judge += ["--judge-equal"]
    assert command(*judge) == 2
    assert (
        "part's to question q3" in (told := capsys.readouterr().err) and "--allow-missing" in told
    )
    assert not endpoint.requests, "nothing was paid"

    assert command(*judge, "--allow-missing") == 0
    assert endpoint.requests.total() == paid, "what has no answer is not sent"
    assert command("report", str(out)) == 1
    assert f"{planned - paid} of {planned} judgments have no score" in capsys.readouterr().err
    options = [] if protocol != "pairwise-swap" else ["--style-control"]
    assert command("report", str(out), "--allow-missing", *options) == 0
    result = json.loads((out / "report.json").read_text())["protocols"][protocol]
    assert result["judgments"]["ok"] == paid and result["judgments"]["missing"] == planned - paid
    if protocol == "pairwise-swap":
        assert (result["pairs"][0]["n"], result["pairs"][0]["total"]) == (3, 4)
        assert "3 of 4" in (out / "report.html").read_text()
    else:
        found = {name: (row["n"], row["total"]) for name, row in result["scores"].items()}
        half = planned // 2
        assert found == {"full": (half, half), "part": (paid - half, half)}

    (out / "answers" / "part.jsonl").write_bytes((out / "answers" / "full.jsonl").read_bytes())
    assert command(*judge) == 0 and command("report", str(out)) == 0
    again = has_first_turn and protocol == "mt-bench"
    assert endpoint.requests.total() == planned + again, "only what was missing is paid"
