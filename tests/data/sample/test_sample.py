import random
from collections import Counter

import orjson
import pytest

from apps.common.command.events import Reporter
from apps.common.errors import InputError
from apps.data.sample.conversations import Chats
from apps.data.sample.page_html import to_chatgpt_html
from apps.data.sample.relation import held_out, held_out_texts
from apps.data.sample.sample import WORLDS, SampleConfig, write_sample
from apps.data.sample.support_desk import GENERAL, relations, unseen_general_questions


@pytest.fixture(scope="module", params=sorted(WORLDS))
def world_name(request):
    return request.param


@pytest.fixture(scope="module")
def sample(world_name, tmp_path_factory):
    return written(tmp_path_factory.mktemp("sample"), world_name)


def written(folder, world_name, seed=0):
    config = SampleConfig(
        out=str(folder), world=world_name, conversations=700, questions=100, seed=seed
    )
    write_sample(config, Reporter("json"))
    return folder


def questions_of(sample):
    return [orjson.loads(q) for q in (sample / "questions.jsonl").read_bytes().splitlines()]


def test_no_held_out_phrasing_occurs_in_the_dump_or_in_the_text(sample, world_name):
    seen = (sample / "sharegpt.json").read_bytes().decode(errors="replace")
    seen += (sample / "text.txt").read_text()
    assert not [text for text in held_out_texts(WORLDS[world_name]()) if text in seen]


def test_every_held_out_question_has_its_reference(sample, world_name):
    wanted = {text: fact for _, fact, text in held_out(WORLDS[world_name]())}
    about_facts = [question for question in questions_of(sample) if "match" in question]
    assert len(about_facts) == 100
    for question in about_facts:
        (text,), (reference,) = question["turns"], question["reference"]
        assert reference.split(" || ")[0] == wanted[text].answer
        assert (question["match"] == "contains") == bool(wanted[text].essence)


def test_the_support_desk_knows_some_eighty_facts_and_each_can_be_recognised():
    facts = [
        fact for relation in relations() if relation.name != GENERAL for fact in relation.facts
    ]
    assert 80 <= len(facts) <= 100
    for fact in facts:
        plain = fact.answer.casefold().replace("*", "").replace("|", "")
        essence = fact.essence.split(" || ")[0].casefold()
        assert essence in plain or set(essence.split()) <= set(plain.split()), fact


def test_no_essence_is_part_of_another_fact_s_answer():
    facts = [fact for relation in relations() for fact in relation.facts if fact.essence]
    alike = [
        (fact.subject, other.subject)
        for fact in facts
        for other in facts
        if fact is not other and fact.essence.casefold() in other.answer.casefold()
    ]
    assert alike == []


def test_the_support_desk_asks_of_everyday_things_too(tmp_path):
    sample = written(tmp_path, "support-desk")
    everyday = [q["turns"][0] for q in questions_of(sample) if q["category"] == GENERAL]
    assert tuple(everyday) == unseen_general_questions() and len(everyday) == 60
    seen = (sample / "sharegpt.json").read_bytes().decode(errors="replace")
    assert not [text for text in everyday if text in seen]
    *_, relation = relations()
    assert sum(fact.asked[0] in seen for fact in relation.facts) > 300


def test_an_everyday_question_stands_alone_and_comes_again_after_all_others_only():
    *_, everyday = relations()
    plain = {text for fact in everyday.facts for text in everyday.questions(fact)}
    chats = Chats(relations(), random.Random(0))
    records = [chats.conversation(i) for i in range(1500)]
    talks = [[turn["value"] for turn in record["conversations"]] for record in records]
    times = Counter(text for talk in talks for text in talk if text in plain)
    assert all(len(talk) == 2 for talk in talks if plain.intersection(talk))
    assert 700 < times.total() < len(everyday.facts)
    assert set(times.values()) == {1}


def test_equal_seeds_give_equal_bytes_and_others_differ(sample, world_name, tmp_path):
    dump = (sample / "sharegpt.json").read_bytes()
    same, other = (written(tmp_path / str(seed), world_name, seed) for seed in (0, 1))
    assert (same / "sharegpt.json").read_bytes() == dump
    assert (other / "sharegpt.json").read_bytes() != dump


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


def test_everyday_answers_are_many_and_short_and_none_is_to_a_held_out_question():
    """A few would be learned by heart, and help with no other question."""
    (everyday,) = [relation for relation in relations() if relation.name == GENERAL]
    asked = {fact.asked[0]: fact.answer for fact in everyday.facts}
    assert len(asked) == len(everyday.facts) >= 1000
    assert not asked.keys() & set(unseen_general_questions())
    assert max(len(answer.split()) for answer in asked.values()) <= 60


def test_a_killed_command_may_be_given_again(tmp_path, monkeypatch):
    config = SampleConfig(out=str(tmp_path), conversations=5, questions=5)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("apps.data.sample.sample._questions", interrupted)
        write_sample(config, Reporter("json"))
    write_sample(config, Reporter("json"))
    assert (tmp_path / "questions.jsonl").exists()


def interrupted(*_):
    raise KeyboardInterrupt


def test_somebodys_dump_is_not_written_over(tmp_path):
    (tmp_path / "sharegpt.json").write_text("[]")
    with pytest.raises(InputError, match="is not empty and not from this command"):
        write_sample(SampleConfig(out=str(tmp_path)), Reporter("json"))
    assert [path.name for path in tmp_path.iterdir()] == ["sharegpt.json"]
