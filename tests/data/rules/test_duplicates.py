"""Which of several equal conversations stays does not depend on who came first to the worker."""

import random
from pathlib import Path

import pytest

from apps.data.rules.profiles import Rules
from tests.data import corpus
from tests.data.commands import conversation, rows_of, run_clean, write_dump


def dropped(out: Path) -> dict[str, tuple[str, str]]:
    return {row["source_id"]: (row["rule"], row["detail"]) for row in rows_of(out / "dropped")}


def kept(out: Path) -> list[str]:
    return [row["source_id"] for row in rows_of(out)]


def test_the_longest_of_equals_stays(tmp_path: Path) -> None:
    dump = write_dump(
        tmp_path / "dump.json",
        [
            conversation("same", "What is a noun?", "A word."),
            conversation("blanks", "what  is a NOUN?", "A\nword.\n"),
            conversation("continued", "What is a noun?", "A word.", "And a verb?", "Another."),
            conversation(
                "same", "Something else entirely", "A longer text than before, with id same."
            ),
            conversation("opening", "What is a noun?", "A word.", "Why?", "Because."),
        ],
    )
    run_clean(tmp_path / "out", dump)
    assert kept(tmp_path / "out") == ["continued", "same"]
    rules = {name: rule for name, (rule, _) in dropped(tmp_path / "out").items()}
    assert rules == {"same": "duplicate_id", "blanks": "duplicate", "opening": "duplicate_opening"}
    winner = next(r["id"] for r in rows_of(tmp_path / "out") if r["source_id"] == "continued")
    assert dropped(tmp_path / "out")["opening"][1] == winner


@pytest.mark.parametrize("reverse", [False, True])
def test_near_duplicates_go_and_merely_similar_texts_stay(reverse: bool, tmp_path: Path) -> None:
    draw = random.Random(7)
    records = []
    for i in range(30):
        words = corpus.Writer(i).words(300, 300).split()
        edited = [word if draw.random() > 0.01 else "changed" for word in words]
        records.append(conversation(f"long{i}", "Tell me.", " ".join([*words, "the", "end"])))
        records.append(conversation(f"near{i}", "Tell me.", " ".join(edited)))
        half = [*words[:150], *corpus.Writer(100 + i).words(150, 150).split()]
        records.append(conversation(f"half{i}", "Tell me.", " ".join(half)))
    dump = write_dump(tmp_path / "dump.json", records[::-1] if reverse else records)
    run_clean(tmp_path / "out", dump, rules=Rules(near_duplicate=0.7, duplicate_opening="keep"))
    gone = dropped(tmp_path / "out")
    assert {rule for rule, _ in gone.values()} == {"near_duplicate"}
    assert sorted(int(name[4:]) for name in gone) == list(range(30))
    assert not any(name.startswith("half") for name in gone)


def test_without_duplicate_rules_everything_stays(tmp_path: Path) -> None:
    same = conversation("a", "What is a noun?", "A word.")
    run_clean(tmp_path / "out", write_dump(tmp_path / "dump.json", [same] * 3), profile="none")
    assert kept(tmp_path / "out") == ["a", "a", "a"]
