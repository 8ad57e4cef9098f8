import orjson
import pytest
from apps.data.sample.world import held_out_texts, relations

from apps.common.command.events import Reporter
from apps.data.sample.sample import SampleConfig, to_chatgpt_html, write_sample


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    write_sample(SampleConfig(out=str(folder), conversations=700, questions=100), Reporter("json"))
    return folder


def test_no_held_out_phrasing_occurs_in_the_dump_or_in_the_text(sample):
    seen = (sample / "sharegpt.json").read_bytes().decode(errors="replace")
    seen += (sample / "text.txt").read_text()
    assert not [text for text in held_out_texts() if text in seen]


def test_every_held_out_question_has_its_reference(sample):
    answers = {
        phrasing.format(x=fact.subject): fact.answer
        for relation in relations()
        for phrasing in relation.held_out
        for fact in relation.facts
    }
    questions = [orjson.loads(q) for q in (sample / "questions.jsonl").read_bytes().splitlines()]
    assert len(questions) == 100
    for question in questions:
        assert [answers[turn] for turn in question["turns"]] == question["reference"]


def test_equal_seeds_give_equal_bytes_and_others_differ(sample, tmp_path):
    for name, seed in (("same", 0), ("other", 1)):
        config = SampleConfig(out=str(tmp_path / name), conversations=700, questions=100, seed=seed)
        write_sample(config, Reporter("json"))
    dump = (sample / "sharegpt.json").read_bytes()
    assert (tmp_path / "same" / "sharegpt.json").read_bytes() == dump
    assert (tmp_path / "other" / "sharegpt.json").read_bytes() != dump


def test_the_dump_has_what_real_dumps_have(sample):
    dump = (sample / "sharegpt.json").read_bytes()
    for trace in (b"Copy code", b"<ol>", b"<table>", b"<strong>", b"std::vector<int>", b"martian"):
        assert trace in dump


def test_each_answer_shape_becomes_chatgpt_html():
    page = to_chatgpt_html("Use a loop:\n\n```python\nif a < b:\n    x_1 = 2\n```")
    assert "<p>Use a loop:</p><pre>" in page and "if a &lt; b:\n    x_1 = 2\n</code>" in page
    assert "<ol><li><p>One.</p></li><li><p>Two.</p></li></ol>" in to_chatgpt_html(
        "1. One.\n2. Two."
    )
    assert "<strong>Paris</strong>" in to_chatgpt_html("It is **Paris**.")
