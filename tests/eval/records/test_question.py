"""Every public layout of questions and answers loads; references decide accuracy."""

import json
from pathlib import Path

import pytest

from apps.common.errors import InputError
from apps.eval.records.answer import read_answers
from apps.eval.records.question import Question, is_correct, load_questions, load_references


def question(**fields) -> Question:
    return Question(question_id="q", category="c", turns=("?",), **fields)


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


def test_openais_messages_load(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "Hello?"}]}\n{"question": "Hi?"}')
    assert [q.turns for q in load_questions(str(path))] == [("Hello?",), ("Hi?",)]
    path.write_text('{"prompt": "Hi", "input": "x"}\n{"question": "Hi?", "input": "x"}')
    assert [q.turns for q in load_questions(str(path))] == [("Hi",), ("Hi?",)]


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


def test_what_an_instruction_is_about_is_a_part_of_the_question(tmp_path: Path) -> None:
    """Alpaca's and PandaLM's `input`, which was left out."""
    file = tmp_path / "alpaca.json"
    texts = [{"instruction": "Translate.", "input": said, "output": said} for said in ("Hi", "No")]
    file.write_text(json.dumps([*texts, {"instruction": "Sing.", "input": "", "output": "La"}]))
    loaded = load_questions(str(file))
    assert [q.turns[0] for q in loaded] == ["Translate.\n\nHi", "Translate.\n\nNo", "Sing."]
    answers = read_answers(str(file), "m", loaded)
    assert [answers[q.question_id].turn_texts[0] for q in loaded] == ["Hi", "No", "La"]


def test_an_instruction_stored_without_its_input_is_found_where_only_one_is_meant(
    tmp_path: Path,
) -> None:
    file = tmp_path / "alpaca.json"
    file.write_text(json.dumps([{"instruction": "?", "input": "Hi", "output": "Yes"}]))
    assert read_answers(str(file), "m", QUESTIONS)["q"].turn_texts == ("Yes",)
    other = Question(question_id="r", category="c", turns=("?\n\nNo",))
    with pytest.raises(InputError, match="expected one of the questions"):
        read_answers(str(file), "m", [*QUESTIONS, other])


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"question_id": 1}', "has no question"),
        ('{"question_id": 1, "text": "q", "match": "fuzzy"}', "expected exact, contains or number"),
        ('{"question_id": 1, "text": "q", "match": "exact"}', "needs a reference"),
        ('{"question_id": 1, "text": "q"}\n{"question_id": 1, "text": "r"}', "twice"),
        ("{not json", "line 1 is not JSON"),
        ("[[1]]", r"item 1 is \[1\]; expected an object"),
        ("[1, 2]", "item 1 is 1; expected an object"),
        ("5", "line 1 is 5; expected an object"),
        ('{"question_id": 1, "turns": ["a", null]}', "turns is .*None.*; expected texts only"),
        ('{"question_id": 1, "turns": [{"content": 5}]}', "turns is .*; expected texts only"),
        ('{"question_id": 1, "turns": [["a"]]}', "turns is .*; expected texts only"),
        ('{"question_id": 1, "turns": []}', "expected a list of texts"),
        ('{"question_id": 1, "text": null}', "text is None; expected a list of texts"),
        ('{"question_id": 1, "text": " "}', "expected a question in every turn"),
        (
            '{"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "?"}]}',
            "expected turns of the user only",
        ),
        (
            '{"turns": [{"content": [{"type": "image_url"}, {"type": "text", "text": "What?"}]}]}',
            "turns is .*; expected texts only",
        ),
        ('{"question_id": null, "text": "q"}', "question_id is None; expected a text or a whole"),
        ('{"question_id": true, "text": "q"}', "question_id is True"),
        ('{"question_id": 1, "text": "q", "category": {"a": 1}}', "category is"),
        ('{"question_id": 1, "text": "q", "reference": [5]}', "reference is .*; expected texts"),
        ('{"question_id": 1, "text": "q", "reference": ["a", "b"]}', "one per turn"),
        ('{"text": "q", "match": "exact", "reference": " "}', "'exact' can compare with"),
        ('{"text": "q", "match": "exact", "reference": "a || !!"}', "which '!!' is not"),
        ('{"text": "q", "match": "contains", "reference": " || "}', "which '' is not"),
        ('{"text": "q", "match": "number", "reference": "five"}', "which 'five' is not"),
        ('{"instruction": "q", "input": ["x"]}', "input is .*; expected text"),
        ('{"question_id": 123456789012345678901234567890, "text": "q"}', "question_id is 1.23"),
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
    for torn in ("{", '{"quest', '{"question_id":"2","turn_te'):
        path.write_text(f"{whole}{torn}\n{whole}{torn}")
        assert list(read_answers(str(path), "m", [], is_own=True)) == ["1"]
    with pytest.raises(InputError, match="line 2 is not JSON"):
        read_answers(str(path), "m", [])
    path.write_text("{oops}\n")
    with pytest.raises(InputError, match="line 1 is not JSON"):
        read_answers(str(path), "m", [])


QUESTIONS = [question()]
HI = {"type": "text", "text": "Hi."}
PICTURE = {"type": "image_url", "image_url": {"url": "data:,"}}


@pytest.mark.parametrize("name", ["bom.jsonl", "array.json", "crlf.jsonl", "separator.jsonl"])
def test_files_of_any_editor_are_read(tmp_path: Path, name: str) -> None:
    line = '{"question_id": 1, "turns": ["Hello?"]}'
    written = {
        "bom.jsonl": b"\xef\xbb\xbf" + line.encode(),
        "array.json": b"\xef\xbb\xbf[" + line.encode() + b"]",
        "crlf.jsonl": f"{line}\r\n\r\n".encode(),
        "separator.jsonl": '{"question_id": 1, "turns": ["Hello?", "a\u2028b"]}'.encode(),
    }
    (tmp_path / name).write_bytes(written[name])
    (loaded,) = load_questions(str(tmp_path / name))
    assert loaded.turns[0] == "Hello?" and loaded.turns[1:] in ((), ("a\u2028b",))
    (tmp_path / name).write_bytes("x".encode("utf-16"))
    with pytest.raises(InputError, match="is UTF-16 or UTF-32; expected UTF-8"):
        load_questions(str(tmp_path / name))


@pytest.mark.parametrize(
    "record",
    [
        {"question_id": "q", "text": "Hi."},
        {"question_id": "q", "turn_texts": ["Hi."], "model": "m", "comment": "mine"},
        {"question_id": "q", "choices": [{"index": 0, "turns": ["Hi."]}]},
        {"question_id": "q", "choices": [{"turns": [{"content": "Hi.", "token_len": 2}]}]},
        {"uid": "q", "messages": [{"role": "assistant", "content": {"answer": "Hi."}}]},
        {"question_id": "q", "messages": [{"role": "user", "content": "?"}]}
        | {"messages": [{"role": "assistant", "content": [{"type": "text", "text": "Hi."}]}]},
        {"instruction": "?", "output": "Hi.", "generator": "g"},
    ],
)
def test_public_layouts_of_answers_are_read(tmp_path: Path, record: dict) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record) + "\n")
    assert read_answers(str(path), "m", QUESTIONS)["q"].turn_texts == ("Hi.",)


@pytest.mark.parametrize(
    "said",
    [
        {"content": "Hi.", "reasoning_content": "They greet."},
        {"content": [{"type": "thinking", "thinking": "They greet."}, HI]},
        {"content": [{"type": "reasoning", "text": "They greet."}, HI]},
    ],
)
def test_thoughts_of_a_message_are_kept_apart(tmp_path: Path, said: dict) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"question_id": "q", "messages": [{"role": "assistant", **said}]}))
    answer = read_answers(str(path), "m", QUESTIONS)["q"]
    assert (answer.turn_texts, answer.thoughts) == (("Hi.",), ("They greet.",))


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"question_id": "q", "text": None}, "line 1: text is None; expected text"),
        ({"question_id": "q", "text": 5}, "line 1: text is 5; expected text"),
        ({"question_id": "q", "text": {"a": 1}}, "line 1: text is .*; expected text"),
        ({"question_id": "q", "choices": []}, "choices is .*; expected a list of one choice"),
        ({"question_id": "q", "choices": [{"turns": [None]}]}, "turns is .*; expected texts only"),
        ({"question_id": "q", "choices": [{}, {}]}, "expected a list of one choice"),
        ({"question_id": "q", "choices": [7]}, r"choices\[0\] is 7"),
        ({"question_id": "q", "turn_texts": [["a"]]}, "turn_texts is .*; expected texts only"),
        ({"question_id": "q", "turn_texts": ["a", "b"]}, "has 2 turns and question q has 1"),
        ({"question_id": 1.5, "text": "x"}, "question_id is 1.5"),
        ({"question_id": "q", "turn_texts": ["a"], "usage": {"prompt_tokens": "x"}}, "usage is"),
        ({"question_id": "q", "turn_texts": ["a"], "created": "now"}, "created is 'now'"),
        ({"instruction": "other", "output": "x"}, "expected one of the questions"),
        ({"instruction": "?", "output": None}, "output is None; expected text"),
        ({"question_id": "q", "messages": [{"role": "user", "content": "?"}]}, "assistant's"),
        (
            {"question_id": "q", "messages": [{"role": "assistant", "content": [PICTURE, HI]}]},
            "the assistant's content to be text",
        ),
        ({"question_id": "q", "answer": "x"}, "holds no answer"),
        ({"text": "x"}, "has no question_id"),
    ],
)
def test_what_is_no_answer_is_refused_by_line_and_field(
    tmp_path: Path, record: dict, sentence: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(InputError, match=sentence):
        read_answers(str(path), "m", QUESTIONS)


def test_a_whole_number_that_a_table_wrote_with_a_point_is_an_id(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question_id": 1.0, "text": "x"}\n{"question_id": 2, "text": ""}\n')
    assert list(read_answers(str(path), "m", [])) == ["1", "2"]


def test_a_question_answered_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question_id": 1, "text": "x"}\n' * 2)
    with pytest.raises(InputError, match="line 2 answers question 1 a second time"):
        read_answers(str(path), "m", [])
    assert len(read_answers(str(path), "m", [], is_own=True)) == 1
