"""The published table comes out of the public reviews to the digit."""

import json
from pathlib import Path

import pytest

from apps.common.command.cli import run
from apps.eval.__main__ import COMMANDS
from apps.eval.protocols.parsing import parse
from apps.eval.replay import folder_reviews, shipped_reviews, tabulate

TABLE = {
    "llama-13b": (513.0, 694.0, 77, 0, 3),
    "alpaca-13b": (583.0, 704.0, 76, 1, 3),
    "bard": (664.0, 655.5, 40, 10, 30),
    "gpt35": (693.0, 638.0, 14, 22, 44),
}
FIGURE_1 = {"llama-13b": 68.05, "alpaca-13b": 76.24, "bard": 93.26, "vicuna": 92.06, "gpt35": 100}


def rows(table: dict) -> dict:
    names = ("baseline_total", "vicuna_total", "win", "tie", "loss")
    return {pair: tuple(row[name] for name in names) for pair, row in table["pairs"].items()}


def test_the_shipped_scores_reproduce_the_published_table() -> None:
    table = tabulate(shipped_reviews("published"))
    assert rows(table) == TABLE
    quality = {name: round(value, 2) for name, value in table["relative_quality_percent"].items()}
    assert quality == FIGURE_1


def test_the_shipped_reparsed_scores_differ_in_the_two_known_places() -> None:
    table = rows(tabulate(shipped_reviews("reparsed")))
    assert (table["bard"][1], table["llama-13b"][1]) == (657.5, 696.0)
    assert {pair: row[0] for pair, row in table.items()} == {p: r[0] for p, r in TABLE.items()}


def test_all_public_reviews_parse_and_reproduce_the_table(real_data: Path) -> None:
    folder = real_data / "vicuna-blog-eval"
    for mode in ("published", "reparsed"):
        ours = sorted(shipped_reviews(mode), key=str)
        assert sorted(folder_reviews(str(folder), mode), key=str) == ours
    expected = json.loads((folder / "expected_table2.json").read_text())["pairs"]
    table = tabulate(folder_reviews(str(folder), "published"))["pairs"]
    for theirs, pair in {"llama": "llama-13b", "chatgpt": "gpt35", "bard": "bard"}.items():
        assert table[pair]["per_category"] == expected[theirs]["per_category"]


def test_most_public_reviews_fail_the_first_line_rule_only_for_math(real_data: Path) -> None:
    """The 12 math reviews carry their scores at the end; a first-line parser loses them."""
    late = 0
    for path in (real_data / "vicuna-blog-eval" / "review").iterdir():
        for line in path.read_text().splitlines():
            text = json.loads(line)["text"]
            late += parse(text.strip().split("\n")[0], "scores").status != "ok"
    assert late == 12


def test_replay_prints_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("apps.eval", COMMANDS, ["replay", "--json"]) == 0
    pairs = json.loads(capsys.readouterr().out)["pairs"]
    assert pairs["gpt35"]["baseline_total"] == 693.0
    assert set(pairs["bard"]["per_category"]["fermi"]) == {
        "baseline",
        "vicuna",
        "win",
        "tie",
        "loss",
    }


def test_a_folder_without_reviews_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "question.jsonl").write_text('{"question_id": 1, "text": "q", "category": "c"}\n')
    assert run("apps.eval", COMMANDS, ["replay", str(tmp_path)]) == 2
    assert "review_<baseline>_<model>" in capsys.readouterr().err
