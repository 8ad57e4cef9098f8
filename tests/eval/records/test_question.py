"""Every public layout of questions and answers loads; references decide accuracy."""

import json
from pathlib import Path

import pytest

from apps.common.errors import InputError
from apps.eval.records.answer import read_answers
from apps.eval.records.question import Question, is_correct, load_questions, load_references


def question(**fields) -> Question:
    return Question(question_id="q", category="c", turns=("?",), **fields)


@pytest.mark.parametrize(
    ("match", "reference", "answer", "expected"),
    [
        ("exact", "Paris", " paris. ", True),
        ("exact", "Paris", "It is Paris", False),
        ("contains", "Paris", "It is Paris, of course.", True),
        ("contains", "par", "It is Paris", False),
        ("contains", "C++ || Rust", "I like C++ best", True),
        ("number", "1,024", "so 2^10 = 1024", True),
        ("number", "3.5", "about 3", False),
        ("number", "7", "none", False),
    ],
)
def test_a_match_decides(match, reference: str, answer: str, expected: bool) -> None:
    assert is_correct(question(match=match, reference=(reference,)), answer) is expected


def test_without_a_match_nothing_is_claimed() -> None:
    assert is_correct(question(reference=("Paris",)), "Paris") is None


def test_public_layouts_load(real_data: Path) -> None:
    blog = load_questions(str(real_data / "vicuna-blog-eval" / "question.jsonl"))
    assert len(blog) == 80 and len({q.category for q in blog}) == 9
    bench = load_questions(str(real_data / "fastchat" / "mt_bench_question.jsonl"))
    assert len(bench) == 80 and all(len(q.turns) == 2 for q in bench)
    references = load_references(str(real_data / "fastchat" / "mt_bench_reference_gpt-4.jsonl"))
    assert all(len(turns) == 2 for turns in references.values())
    answers = real_data / "vicuna-blog-eval" / "answer" / "answer_bard.jsonl"
    assert len(read_answers(str(answers), "bard", blog)) == 80


def test_alpaca_eval_and_arena_hard_load(tmp_path: Path) -> None:
    alpaca = tmp_path / "alpaca_eval.json"
    alpaca.write_text(json.dumps([{"instruction": "Say hi", "dataset": "koala", "output": "hi"}]))
    (loaded,) = load_questions(str(alpaca))
    assert (loaded.turns, loaded.category) == (("Say hi",), "koala")
    assert read_answers(str(alpaca), "davinci", [loaded])["1"].turn_texts == ("hi",)
    arena = tmp_path / "question.jsonl"
    arena.write_text('{"uid": "u1", "cluster": "sql", "turns": [{"content": "Write SQL"}]}\n')
    (loaded,) = load_questions(str(arena))
    assert (loaded.question_id, loaded.turns) == ("u1", ("Write SQL",))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"question_id": 1}', "has no question"),
        ('{"question_id": 1, "text": "q", "match": "fuzzy"}', "expected exact, contains or number"),
        ('{"question_id": 1, "text": "q", "match": "exact"}', "needs a reference"),
        ('{"question_id": 1, "text": "q"}\n{"question_id": 1, "text": "r"}', "twice"),
        ("{not json", "not JSON"),
    ],
)
def test_a_wrong_file_is_refused_with_a_sentence(tmp_path: Path, line: str, sentence: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=sentence):
        load_questions(str(path))


def test_a_torn_line_of_our_own_is_passed_over_and_a_foreign_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    whole = '{"question_id":"1","turn_texts":["x"],"model":"m"}\n'
    path.write_text(whole + '{"question_id":"2","turn_te\n')
    assert list(read_answers(str(path), "m", [])) == ["1"]
    path.write_text("{oops}\n")
    with pytest.raises(InputError, match="line 1 is not JSON"):
        read_answers(str(path), "m", [])
