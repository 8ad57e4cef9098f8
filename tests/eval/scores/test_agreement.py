"""Human verdicts stand beside the judge's in the report, through the public commands."""

import json
from pathlib import Path

import pytest

from apps.eval.scores.bias import family, own_family
from apps.eval.scores.judgments import contests
from tests.eval.commands import command, jsonl
from tests.eval.scores.test_scores import judgment
from tests.eval.scripted_judge import Script


@pytest.fixture
def folder(tmp_path: Path, serve) -> Path:
    """Four questions; the judge prefers `good` in all of them."""
    endpoint, out = serve(Script()), tmp_path / "eval"
    asked = [
        {"question_id": f"q{i}", "category": "generic", "text": f"Tell me about item {i}"}
        for i in range(4)
    ]
    arguments = ["answer", "--questions", jsonl(tmp_path / "q.jsonl", asked), "--out", str(out)]
    arguments.append("--answers")
    for name in ("good", "poor"):
        said = [
            {"question_id": q["question_id"], "text": q["text"] if name == "good" else "No."}
            for q in asked
        ]
        arguments.append(f"{name}={jsonl(tmp_path / f'{name}.jsonl', said)}")
    assert command(*arguments) == 0
    judged = ["judge", str(out), "--judge", "judge-4", "--no-canaries", "--self-checks", "0"]
    assert command(*judged, "--backend", "batch", "--batch-poll-s", "0.1") == 0
    assert endpoint.batches
    return out


def test_agreement_with_people_is_in_the_report_and_on_its_page(
    folder: Path, tmp_path: Path, capsys
) -> None:
    verdicts = [("q0", "good"), ("q1", "good"), ("q2", "poor"), ("q3", "tie")]
    people = [
        {"question_id": name, "models": ["poor", "good"], "winner": winner}
        for name, winner in verdicts
    ]
    human = jsonl(tmp_path / "human.jsonl", people)
    assert command("report", str(folder), "--human", human) == 0
    result = json.loads((folder / "report.json").read_text())["protocols"]["pairwise-swap"]
    found = result["calibration"]["agreement"]
    assert (found["n"], found["agreement"], found["decided_n"]) == (4, 0.5, 3)
    assert found["decided_agreement"] == pytest.approx(2 / 3)
    assert found["kappa"] == pytest.approx(0.0), "a judge of one opinion agrees by chance"
    page = (folder / "report.html").read_text()
    assert "50 %" in page and "agreement with people (n=4, kappa 0.00)" in page

    assert command("report", "--help") == 0
    told = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    assert "{question_id, models: [a, b], winner: a, b or tie}" in told


@pytest.mark.parametrize("line", ["torn {", "[1, 2]", '{"models": ["good", "poor"]}'])
def test_a_wrong_file_of_human_verdicts_is_named(folder, tmp_path, capsys, line: str) -> None:
    human = tmp_path / "human.jsonl"
    human.write_text(line + "\n")
    assert command("report", str(folder), "--human", str(human)) == 2
    assert f"{human} line 1 is not a verdict" in capsys.readouterr().err


def test_a_judge_is_related_to_all_names_of_its_maker() -> None:
    ours = (
        "gpt-4o",
        "openai/gpt-4o",
        "ChatGPT",
        "gpt35",
        "gpt-3.5-turbo",
        "o3-mini",
        "ft:gpt-4o:x",
        "openai/gpt-oss-20b",
    )
    assert {family(name) for name in (*ours, "text-davinci-003", "chatgpt-4o-latest")} == {"openai"}
    assert family("bard") == family("google/gemini-1.5-pro") == "google"
    others = ("gpt4all-13b", "gpt-j-6b", "gpt-neox-20b", "olmo-7b", "vicuna-13b", "lmsys/vicuna-7b")
    assert "openai" not in {family(name) for name in others}
    assert family("vicuna-13b") == family("lmsys/vicuna-7b") == "vicuna"


def test_self_preference_counts_every_contest_with_one_relative() -> None:
    held = contests(
        [
            judgment(1, 0, "q1", models=("chatgpt", "vicuna-13b"), judge="openai/gpt-4o"),
            judgment(1, 0, "q2", models=("bard", "gpt35"), judge="openai/gpt-4o"),
            judgment(1, 0, "q3", models=("chatgpt", "gpt-4"), judge="openai/gpt-4o"),
        ]
    )
    found = own_family(held)
    assert found is not None and (found.share, found.n) == (0.5, 2)
