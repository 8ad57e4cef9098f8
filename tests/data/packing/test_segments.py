"""Cutting between rounds: nothing is lost, nothing is too long, ids are the template's."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.common.text.conversation import Message
from apps.common.text.templates import load_template
from apps.common.text.tokenizer import load_tokenizer
from apps.data.packing.segments import Cutter, split_rounds
from tests import made

MAX_LENGTH = 96


@pytest.fixture(scope="module", params=["vicuna-v1.1", "llama-2", "chatml"])
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    if request.param == "chatml":
        tokenizer = load_tokenizer(made.byte_level_folder(folder, "chatml"))
    else:
        tokenizer = load_tokenizer(made.sentencepiece_folder(folder))
    return load_template(request.param, tokenizer), tokenizer


def conversation(pairs, system=None) -> tuple[Message, ...]:
    head = () if system is None else (Message("system", system),)
    turns = (m for q, a in pairs for m in (Message("user", q), Message("assistant", a)))
    return (*head, *turns)


WORDS = st.text(st.sampled_from("abc né你\n"), min_size=1, max_size=60)
TEXT = WORDS.map(lambda text: text.strip() or "x")
CONVERSATIONS = st.builds(
    conversation, st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8), st.none() | TEXT
)


def test_no_round_is_lost_and_every_segment_is_what_the_template_gives(case):
    template, tokenizer = case

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(CONVERSATIONS, min_size=1, max_size=3))
    def check(conversations):
        cuts = Cutter(template, tokenizer.backend, MAX_LENGTH).cut(conversations)
        for messages, cut in zip(conversations, cuts, strict=True):
            head, rounds, _ = split_rounds(messages)
            kept = [one for s in cut.segments for one in split_rounds(s.messages)[1]]
            num_dropped = sum(cut.dropped.values())
            assert len(kept) + num_dropped == len(rounds) == cut.num_rounds
            assert [one for one in rounds if one in kept] == kept
            for segment in cut.segments:
                whole = template.encode(tokenizer.backend, segment.messages)
                assert segment.messages[: len(head)] == head
                assert 0 < len(segment.ids) <= MAX_LENGTH
                assert segment.ids.tolist() == whole.ids[:MAX_LENGTH].tolist()
                assert segment.mask.tolist() == whole.mask[:MAX_LENGTH].tolist()
                assert segment.is_truncated == (len(whole.ids) > MAX_LENGTH)

    check()


def test_segments_are_as_long_as_they_can_be(case):
    template, tokenizer = case
    messages = conversation([("abc", "cab abc")] * 40)
    (cut,) = Cutter(template, tokenizer.backend, MAX_LENGTH).cut([messages])
    for segment in cut.segments[:-1]:
        longer = (*segment.messages, *messages[:2])
        assert len(template.encode(tokenizer.backend, longer).ids) > MAX_LENGTH


def test_an_over_long_answer_is_cut_without_a_stop_token(case):
    template, tokenizer = case
    messages = conversation([("a", "b"), ("a", "word " * 200), ("c", "d")])
    (cut,) = Cutter(template, tokenizer.backend, MAX_LENGTH).cut([messages])
    assert [s.is_truncated for s in cut.segments] == [False, True, False]
    truncated = cut.segments[1]
    assert len(truncated.ids) == MAX_LENGTH
    stops = template.stop_token_ids(tokenizer.backend)
    assert not any(i in stops for i in truncated.ids[truncated.mask])


def test_over_long_rounds_are_dropped_and_counted_by_rule(case):
    template, tokenizer = case
    long_answer = conversation([("a", "b"), ("a", "word " * 200), ("c", "d")])
    long_prompt = conversation([("word " * 200, "b"), ("c", "d")])
    (cut,) = Cutter(template, tokenizer.backend, MAX_LENGTH, "drop").cut([long_answer])
    assert (len(cut.segments), cut.dropped) == (2, {"over_long_round": 1})
    (cut,) = Cutter(template, tokenizer.backend, MAX_LENGTH).cut([long_prompt])
    assert (len(cut.segments), cut.dropped) == (1, {"over_long_prompt": 1})


def test_an_unanswered_question_at_the_end_is_counted(case):
    template, tokenizer = case
    messages = (*conversation([("a", "b")]), Message("user", "c"))
    (cut,) = Cutter(template, tokenizer.backend, MAX_LENGTH).cut([messages])
    assert (cut.num_rounds, len(cut.segments), cut.dropped) == (2, 1, {"unanswered": 1})


def test_a_conversation_that_the_template_refuses_is_dropped_whole(case):
    template, tokenizer = case
    messages = (*conversation([("a", "b")] * 30), Message("alien", "x"), Message("assistant", "y"))
    (cut,) = Cutter(template, tokenizer.backend, MAX_LENGTH).cut([messages])
    assert (cut.segments, cut.dropped) == ([], {"template_refuses": 31})
