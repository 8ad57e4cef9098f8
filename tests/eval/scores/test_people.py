"""Verdicts of people are read from every layout, and a wrong line is named."""

import json
from pathlib import Path

import pytest

from apps.common.errors import InputError
from apps.eval.records.question import Question
from apps.eval.scores.people import read_people

QUESTIONS = [
    Question(question_id=name, category="generic", turns=(f"What is {name}?",))
    for name in ("1", "2", "3")
]


def jsonl(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def vote(prompt: object, verdict: str, **fields: object) -> dict[str, object]:
    said = [{"role": "user", "content": prompt}, {"role": "assistant", "content": "x"}]
    return {"models": ["a", "b"], "verdict": verdict, "conversations": [said, said], **fields}


ARENA = [
    {"question_id": 1, "model_a": "a", "model_b": "b", "winner": "model_a"},
    {"question_id": 2, "model_a": "b", "model_b": "a", "winner": "model_a"},
    {"question_id": 3, "model_a": "a", "model_b": "b", "winner": "tie (bothbad)"},
]
LAYOUTS = {
    "ours.jsonl": jsonl(
        {"question_id": "1", "models": ["a", "b"], "winner": "a"},
        {"question_id": "2", "models": ["b", "a"], "winner": "b"},
        {"question_id": "3", "models": ["a", "b"], "winner": "tie"},
    ),
    "arena.jsonl": jsonl(*ARENA),
    "arena.csv": "question_id,model_a,model_b,winner\n1,a,b,model_a\n2,b,a,model_a\n3,a,b,tie\n",
    "pandas.csv": "question_id,model_a,model_b,winner\n1.0,a,b,a\n2.0,a,b,b\n3.0,a,b,tie\n",
    "pandas.jsonl": jsonl(*({**one, "question_id": float(one["question_id"])} for one in ARENA)),
    "excel.csv": "\ufeffquestion_id,model_a,model_b,winner\r\n1,a,b,a\r\n2,a,b,b\r\n3,a,b,tie\r\n",
    "votes.jsonl": jsonl(
        vote("What is 1?", "left"),
        vote("What is 2?", "right"),
        vote("What is 3?", "both_bad"),
        vote("What is 3?", "left", counted=False),
        vote("Never asked here", "left"),
    ),
    "pandalm.json": json.dumps(
        [
            {"idx": "1", "cmp_key": "a_b", "annotator1": 1, "annotator2": 1, "input": float("nan")},
            {"idx": "2", "cmp_key": "a_b", "annotator1": 2, "annotator2": 2},
            {"idx": "3", "cmp_key": "a_b", "annotator1": 0, "annotator2": 0},
        ]
    ),
    "review_a_b_human.txt": "A\nb\nTIE\n",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_says_the_same(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(LAYOUTS[name])
    people = read_people(str(file), QUESTIONS)
    assert [people.outcome(q, ("a", "b")) for q in ("1", "2", "3")] == [1.0, 0.0, 0.5]
    assert people.outcome("1", ("b", "a")) == 0.0
    assert people.outcome("4", ("a", "b")) is None


def test_what_was_not_judged_here_is_told(tmp_path: Path) -> None:
    file = tmp_path / "human.jsonl"
    file.write_text(jsonl(*ARENA, {**ARENA[0], "model_b": "c"}, {**ARENA[0], "question_id": 9}))
    people = read_people(str(file), QUESTIONS)
    held = [(name, ("b", "a")) for name in ("1", "2", "3")]
    assert people.beside(held) == [("1", "a", "c"), ("9", "a", "b")]


def test_several_people_are_averaged(tmp_path: Path) -> None:
    file = tmp_path / "human.jsonl"
    file.write_text(jsonl(*({**ARENA[0], "winner": who} for who in ("model_a", "tie", "model_b"))))
    assert read_people(str(file), QUESTIONS).outcome("1", ("a", "b")) == 0.5


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("h.jsonl", jsonl(ARENA[0]) + "torn {\n", "line 2 is not a verdict"),
        ("h.jsonl", jsonl({**ARENA[0], "winner": "nobody"}), "line 1 is not a verdict"),
        ("h.csv", "question,who\n1,a\n", "line 2 is not a verdict"),
        ("h.json", "[1, 2]", "line 1 is not a verdict"),
        ("h.json", "[" * 100_000, "line 1 is not a verdict"),
        ("h.json", '[{"idx": 1, "cmp_key": "a_b", "annotator1": Infinity}]', "line 1 is not"),
        ("h.json", '[{"idx": 1, "cmp_key": "a_b", "annotator1": 1.7}]', "line 1 is not"),
        ("h.jsonl", jsonl(vote(["What is 1?"], "left")), "line 1 is not a verdict"),
        ("h.jsonl", jsonl(vote(7, "left")), "line 1 is not a verdict"),
        ("review_a_b_human.txt", "a\nb\n", "holds 2 verdicts in the order of 3 questions"),
        ("review_a_b_human.txt", "a\nb\nz\n", "line 3 says 'z'"),
    ],
)
def test_a_line_that_no_layout_fits_is_named(
    name: str, text: str, told: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(InputError, match=told):
        read_people(str(file), QUESTIONS)


def test_a_cell_may_hold_a_whole_conversation_and_a_broken_file_is_a_sentence(
    tmp_path: Path,
) -> None:
    head = "question_id,model_a,model_b,winner,conversation\n"
    path = tmp_path / "battles.csv"
    path.write_text(f"{head}q,a,b,model_a,{'x' * 140_000}\n")
    assert read_people(str(path), []).outcome("q", ("a", "b")) == 1.0
    path.write_text(f"{head}q,a,b,model_a,x\n,,,,\n")
    assert len(read_people(str(path), []).outcomes) == 1, "a blank row is no verdict"
    path.write_bytes(f"{head}q,a,b,model_a,x\ry\n".encode())
    with pytest.raises(InputError, match="is no readable CSV"):
        read_people(str(path), [])
    path.write_text(f"{head}q\n")
    with pytest.raises(InputError, match="line 2 is not a verdict"):
        read_people(str(path), [])
