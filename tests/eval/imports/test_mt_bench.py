"""FastChat's model_judgment files become a folder whose report says what their texts say."""

import contextlib
import json
from pathlib import Path

import pytest

from tests.eval.commands import command, jsonl

MODELS = ("alpha", "beta")
RATINGS = {"alpha": (9, 8), "beta": (5, 2)}
# What the judge said in each game, by question and turn; in game 2 Assistant A is model 2.
GAMES = {(81, 1): "AB", (81, 2): "AA", (82, 1): "BA", (82, 2): "CC"}


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    folder = tmp_path / "mt_bench"
    folder.mkdir()
    asked = [
        {"question_id": i, "category": "writing", "turns": [f"Write {i}", "Shorter"]}
        for i in (81, 82)
    ]
    jsonl(folder / "question.jsonl", asked)
    for model in MODELS:
        said = [
            {"question_id": i, "model_id": model, "choices": [{"index": 0, "turns": [model, "x"]}]}
            for i in (81, 82)
        ]
        jsonl(folder / "model_answer" / f"{model}.jsonl", said)
    single = [
        {
            "question_id": i,
            "model": model,
            "judge": ["gpt-4", "single-v1"],
            "user_prompt": f"[Question] {i} by {model}, turn {turn}",
            "judgment": f"It is so.\n\nRating: [[{RATINGS[model][turn - 1]}]]",
            "score": -1,
            "turn": turn,
            "tstamp": 0.0,
        }
        for i in (81, 82)
        for model in MODELS
        for turn in (1, 2)
    ]
    pair = [
        {
            "question_id": i,
            "model_1": "alpha",
            "model_2": "beta",
            "g1_winner": "tie",
            "g2_winner": "tie",
            "judge": ["gpt-4", "pair-v2"],
            **{f"g{g}_user_prompt": f"[Question] {i} turn {turn} game {g}" for g in (1, 2)},
            **{f"g{g}_judgment": f"Final: [[{said[g - 1]}]]" for g in (1, 2)},
            "turn": turn,
            "tstamp": 0.0,
        }
        for (i, turn), said in GAMES.items()
    ]
    jsonl(folder / "model_judgment" / "gpt-4_single.jsonl", [*single, single[0]])
    jsonl(folder / "model_judgment" / "gpt-4_pair.jsonl", pair)
    return folder


def test_ratings_by_turn_and_games_in_both_orders_are_reported(bench: Path, tmp_path) -> None:
    out = tmp_path / "eval"
    assert command("replay", str(bench), "--out", str(out)) == 0
    assert command("report", str(out)) == 0
    report = json.loads((out / "report.json").read_text())
    scores = report["protocols"]["mt-bench"]["scores"]
    assert {name: row["mean"] for name, row in scores.items()} == {"alpha": 8.5, "beta": 3.5}
    assert scores["alpha"]["n"] == 4, "the line that was written twice counts once"
    assert scores["beta"]["per_turn"]["2"] == 2
    paired = report["protocols"]["pairwise-swap"]
    (row,) = paired["pairs"]
    assert row["models"] == ["alpha", "beta"] and paired["judges"] == ["gpt-4"]
    # Turn 1 of 81 is alpha's and of 82 beta's; both second turns are ties.
    assert [row[name] for name in ("win", "tie", "loss", "n")] == [1, 0, 1, 2]
    assert (row["win_rate"], row["consistency"]) == (0.5, {"consistent": 3, "total": 4})
    assert paired["bias"]["order_consistent"]["share"] == 0.75
    assert report["costs"] == [] and "Final: [[A]]" in (out / "report.html").read_text()


def test_an_error_of_the_judge_is_a_missing_score_and_so_is_a_line_left_out(
    bench: Path, tmp_path: Path, capsys
) -> None:
    file = bench / "model_judgment" / "gpt-4_single.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()][:8]
    records[0]["judgment"] = "$ERROR$"
    jsonl(file, records[:7])
    out = tmp_path / "eval"
    assert command("replay", str(bench), "--out", str(out)) == 0
    assert command("report", str(out)) == 1
    told = capsys.readouterr().err
    assert "2 of 16 judgments have no score (1 missing, 1 unparsed)" in told
    assert command("report", str(out), "--allow-missing") == 0
    scores = json.loads((out / "report.json").read_text())["protocols"]["mt-bench"]["scores"]
    assert {name: (row["n"], row["total"]) for name, row in scores.items()} == {
        "alpha": (3, 4),
        "beta": (3, 4),
    }


def test_what_cannot_be_imported_is_named(bench: Path, tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "eval")
    assert command("replay", str(bench)) == 2
    assert "--out" in capsys.readouterr().err
    answers = bench / "model_answer" / "beta.jsonl"
    kept = answers.read_bytes()
    answers.unlink()
    assert command("replay", str(bench), "--out", out) == 2
    assert "judgments of beta" in capsys.readouterr().err
    answers.write_bytes(kept)
    jsonl(bench / "model_judgment" / "gpt-4_pair.jsonl", [{"model_1": "alpha", "model_2": "beta"}])
    assert command("replay", str(bench), "--out", out) == 2
    assert "gpt-4_pair.jsonl line 1 has no question_id" in capsys.readouterr().err


def test_an_import_that_was_killed_is_no_folder_and_is_made_anew(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    out = str(tmp_path / "eval")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("apps.eval.imports.imported._write_manifest", killed)
        with contextlib.suppress(KeyboardInterrupt):
            command("replay", str(bench), "--out", out)
    assert command("report", out) == 2
    assert "is not an evaluation folder" in capsys.readouterr().err
    assert command("replay", str(bench), "--out", out) == 0
    assert command("report", out) == 0
    protocols = json.loads((tmp_path / "eval" / "report.json").read_text())["protocols"]
    assert set(protocols) == {"mt-bench", "pairwise-swap"}
