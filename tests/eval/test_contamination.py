"""Questions that occur in the training data are found, in whatever words surround them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps.common.errors import InputError
from apps.common.schema import MESSAGE
from apps.eval.contamination import measure, training_texts
from apps.eval.questions import Question, load_questions

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


def test_related_texts_are_no_contamination() -> None:
    texts = ["The printing press changed Europe.", "Movable type was older than the press."]
    assert measure([question(ASKED)], iter(texts))["contaminated"] == []


def test_user_turns_of_a_clean_folder_are_read(tmp_path: Path) -> None:
    rows = [[{"role": "user", "content": ASKED}, {"role": "assistant", "content": "Because."}]]
    table = pa.table({"messages": pa.array(rows, pa.list_(MESSAGE))})
    pq.write_table(table, tmp_path / "part-00000.parquet")
    assert list(training_texts(str(tmp_path), None)) == [ASKED]


def test_a_pack_needs_its_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "pack.json").write_text("{}")
    with pytest.raises(InputError, match="--tokenizer"):
        training_texts(str(tmp_path), None)


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
