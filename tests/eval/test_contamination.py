"""Questions that occur in the training data are found, in whatever words surround them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps.common.command.cli import run
from apps.common.errors import InputError
from apps.common.files.schema import MESSAGE
from apps.common.packs import fill_rows, write_pack
from apps.common.text.templates import load_template
from apps.common.text.tokenizer import load_tokenizer
from apps.eval.__main__ import COMMANDS
from apps.eval.contamination import measure, training_texts
from apps.eval.records.question import Question, dump_questions, load_questions
from tests import made

ASKED = "Why did the printing press spread quickly in Europe although movable type was older?"


def question(text: str, identity: str = "q") -> Question:
    return Question(question_id=identity, category="c", turns=(text,))


def test_a_copied_question_is_found_inside_a_longer_text() -> None:
    texts = ["Hello there", f"I wonder: {ASKED.upper()} Please answer in French, and be brief."]
    found = measure(
        [question(ASKED), question("How do bees find their way home?", "b")], iter(texts)
    )
    assert [row["question_id"] for row in found["contaminated"]] == ["q"]
    assert found["contaminated"][0]["overlap"] == 1.0
    assert (found["questions"], found["texts"]) == (2, 2)


def test_a_rephrasing_is_found_by_similarity() -> None:
    near = "Why did the printing press spread so quickly in Europe although movable type is older?"
    (row,) = measure([question(ASKED)], iter([near]))["contaminated"]
    assert row["overlap"] < 1.0 and row["similarity"] > 0.8


def test_a_chinese_question_is_found_whatever_stands_around_it() -> None:
    """Chinese has no blanks: the sentence around it must not make one word of all."""
    asked = "请比较一下烤面包和蒸馒头的做法有什么不同并说明哪一种更适合初学者"
    texts = [f"你好我想问{asked}谢谢你的帮助"]
    (row,) = measure([question(asked)], iter(texts))["contaminated"]
    assert row["overlap"] == 1.0
    others = ["今天天气很好我们去公园散步吧", "请说明一下怎样才能学好数学这门课程"]
    assert measure([question(asked)], iter(others))["contaminated"] == []


def test_related_texts_are_no_contamination() -> None:
    texts = ["The printing press changed Europe.", "Movable type was older than the press."]
    assert measure([question(ASKED)], iter(texts))["contaminated"] == []


def test_user_turns_of_a_clean_folder_are_read(tmp_path: Path) -> None:
    rows = [[{"role": "user", "content": ASKED}, {"role": "assistant", "content": "Because."}]]
    table = pa.table({"messages": pa.array(rows, pa.list_(MESSAGE))})
    pq.write_table(table, tmp_path / "part-00000.parquet")
    assert list(training_texts(str(tmp_path), None)) == [ASKED]


def _tokenizer_folder(folder: Path, **settings: int) -> str:
    folder.mkdir()
    return made.byte_level_folder(folder, **settings)


@pytest.fixture
def pack(tmp_path: Path) -> str:
    """Two conversations in one row; the question is the second one's."""
    tokenizer = load_tokenizer(_tokenizer_folder(tmp_path / "tokenizer"))
    template = load_template("vicuna-v1.1", tokenizer)
    parts = []
    for asked, said in (("Hello there", "Good day"), (ASKED, "Because cities were rich.")):
        turns = [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": said},
        ]
        encoded = template.encode(tokenizer.backend, turns)
        parts.append((encoded.ids, encoded.mask))
    rows = fill_rows([parts], sum(len(ids) for ids, _ in parts) + 5, tokenizer.pad_id)
    write_pack(str(tmp_path / "pack"), {"train": rows}, template, tokenizer.digest)
    return str(tmp_path / "pack")


def test_a_question_is_found_in_a_pack_and_what_models_say_is_not(pack: str, tmp_path) -> None:
    texts = list(training_texts(pack, str(tmp_path / "tokenizer")))
    assert [ASKED in text for text in texts].count(True) == 1
    assert not any("Because" in text or "Good day" in text for text in texts)
    out = tmp_path / "contamination.json"
    questions = tmp_path / "questions.jsonl"
    questions.write_bytes(dump_questions([question(ASKED), question("How do bees see?", "b")]))
    asked = ["contamination", str(questions), "--data", pack, "--out", str(out)]
    assert run("apps.eval", COMMANDS, [*asked, "--tokenizer", str(tmp_path / "tokenizer")]) == 0
    found = json.loads(out.read_text())
    assert [row["question_id"] for row in found["contaminated"]] == ["q"]


def test_a_pack_needs_its_own_tokenizer(pack: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--tokenizer"):
        training_texts(pack, None)
    other = tmp_path / "other"
    _tokenizer_folder(other, vocab_size=400)
    with pytest.raises(InputError, match="was not made with the tokenizer"):
        list(training_texts(pack, str(other)))


def test_the_built_in_questions_are_80_in_nine_categories_and_do_not_repeat_each_other() -> None:
    questions = load_questions("built-in")
    assert len(questions) == 80
    counts = {c: sum(q.category == c for q in questions) for c in {q.category for q in questions}}
    assert counts.pop("coding") + counts.pop("math") == 10
    assert set(counts.values()) == {10} and len(counts) == 7
    for q in questions:
        assert bool(q.reference) == (q.category in ("coding", "math"))
    for i, q in enumerate(questions):
        rest = [other.turns[0] for other in questions[:i] + questions[i + 1 :]]
        assert measure([q], iter(rest))["contaminated"] == []
