"""Reviews in the blog's layout become a folder whose report says what the blog said."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from apps.eval.calls import journal
from apps.eval.figures.models import PairRow, ScoreTotals, WinTieLoss
from apps.eval.replay import shipped_reviews
from apps.eval.scores.relative import relative_quality
from tests.eval.commands import command, jsonl

PROMPT = {
    "system_prompt": "You check answers.",
    "prompt_template": "{question}\n1: {answer_1}\n2: {answer_2}\n{prompt}",
    "defaults": {"prompt": "Rate them."},
}


@pytest.fixture
def blog(tmp_path: Path) -> Path:
    """The blog's layout with its scores, and texts that say no more than those."""
    folder = tmp_path / "blog"
    folder.mkdir()
    kinds = ("general", "coding", "math")
    jsonl(folder / "prompt.jsonl", [{**PROMPT, "category": kind} for kind in kinds])
    reviews, categories = defaultdict(list), {}
    for item in shipped_reviews("published"):
        categories[item.question_id] = item.category
        scores = [item.baseline_score, item.vicuna_score]
        text = f"{scores[0]:g} {scores[1]:g}\nSo it is."
        reviews[item.baseline].append(
            {
                "question_id": int(item.question_id),
                "text": text,
                "score": scores,
                "reviewer_id": "gpt-4-0328",
            }
        )
    asked = [
        {"question_id": int(name), "text": f"Question {name}?", "category": category}
        for name, category in categories.items()
    ]
    jsonl(folder / "question.jsonl", asked)
    for model in [*reviews, "vicuna-13b"]:
        answers = [
            {"question_id": int(name), "text": f"{model} on {name}", "model_id": model}
            for name in categories
        ]
        jsonl(folder / "answer" / f"answer_{model}.jsonl", answers)
    for model, found in reviews.items():
        jsonl(folder / "review" / f"review_{model}_vicuna-13b.jsonl", found)
    return folder


def test_imported_reviews_give_the_published_table_and_figure_in_the_report(
    blog: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "eval"
    assert command("replay", str(blog), "--out", str(out)) == 0
    stored = journal.read_raw(str(out))
    assert {(r["judge"], r["endpoint_model"]) for r in stored} == {("gpt-4", "gpt-4-0328")}
    capsys.readouterr()
    assert command("report", str(out), "--baseline", "gpt35") == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rated = [event["model"] for event in told if event["event"] == "report.rating"]
    assert rated[:2] == ["gpt35", "vicuna-13b"]
    report = json.loads((out / "report.json").read_text())
    result = report["protocols"]["vicuna-blog"]
    rows = {row["models"][0]: row for row in result["pairs"]}
    sums = {name: row["score_totals"] for name, row in rows.items()}
    totals = {name: [found["first"], found["second"]] for name, found in sums.items()}
    assert totals["gpt35"] == [693, 638] and totals["llama-13b"] == [513, 694]
    assert totals["alpaca-13b"] == [583, 704] and totals["bard"] == [664, 655.5]
    assert [rows["gpt35"][name] for name in ("loss", "tie", "win")] == [14, 22, 44]
    shares = {
        name: round(share, 2) for name, share in result["relative_quality"]["percent"].items()
    }
    assert shares == {
        "gpt35": 100,
        "bard": 93.26,
        "vicuna-13b": 92.06,
        "alpaca-13b": 76.24,
        "llama-13b": 68.05,
    }
    page = (out / "report.html").read_text()
    assert "chained through vicuna-13b" in page and "paid to judges" not in page
    assert report["costs"] == [], "nothing was paid here"
    stored = journal.read_raw(str(out))
    assert len({record["key"] for record in stored}) == len(stored) == 320

    assert command("replay", str(blog), "--out", str(out)) == 2
    assert "evaluation folder already" in capsys.readouterr().err


def test_an_incomplete_import_is_refused(blog: Path, tmp_path: Path, capsys) -> None:
    (blog / "answer" / "answer_bard.jsonl").unlink()
    assert command("replay", str(blog), "--out", str(tmp_path / "eval")) == 2
    assert "reviews of bard" in capsys.readouterr().err
    assert command("replay", "--out", str(tmp_path / "eval")) == 2
    assert "name it" in capsys.readouterr().err


def test_a_question_reviewed_twice_is_refused(blog: Path, tmp_path: Path, capsys) -> None:
    """Which of two reviews counts is not for the order of lines to say."""
    review = next((blog / "review").glob("review_bard_*.jsonl"))
    lines = review.read_text().splitlines()
    review.write_text("\n".join([*lines, lines[3]]))
    assert command("replay", str(blog), "--out", str(tmp_path / "eval")) == 2
    assert "a second time" in capsys.readouterr().err and not (tmp_path / "eval").exists()


def test_models_that_met_are_compared_directly_and_single_answers_by_their_means() -> None:
    pair = PairRow(
        models=("a", "b"),
        n=1,
        total=1,
        counts=WinTieLoss(win=0, tie=0, loss=1),
        per_category={},
        consistency=None,
        rate=None,
        score_totals=ScoreTotals(first=300.0, second=400.0, ratio=0.75, low=0.75, high=0.75),
    )
    found = relative_quality({"a": 5.0, "b": 6.0, "c": 3.0}, [pair], "b")
    assert found is not None and found.through == {}
    assert found.percent == {"a": 75.0, "b": 100.0, "c": 50.0}
    assert relative_quality({}, (), None) is None


def test_a_score_that_may_be_0_or_less_is_no_share() -> None:
    scale = (-1.0, 1.0)
    assert relative_quality({"good": 0.5, "bad": -0.5}, (), None, scale) is None
    assert relative_quality({"good": -0.5, "bad": -1.0}, (), None) is None
    assert relative_quality({"a": 0.0, "b": 0.0}, (), None) is None
    assert relative_quality({"a": 50.0, "b": 25.0}, (), None, (0.0, 100.0)) is None
    assert relative_quality({"a": 4.0, "b": 3.0}, (), None, (1.0, 5.0)) is not None


def test_an_unknown_baseline_is_refused(blog: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "eval"
    assert command("replay", str(blog), "--out", str(out)) == 0
    assert command("report", str(out), "--baseline", "gpt53") == 2
    assert "'gpt53' is not among the models" in capsys.readouterr().err
