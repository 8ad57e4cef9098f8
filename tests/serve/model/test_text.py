import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.serve.model.text import StopMatcher, TextStream, TokenBytes
from tests.serve.tokenizer_kinds import byte_fallback, byte_level

TOKENIZERS = {"byte_level": byte_level(), "byte_fallback": byte_fallback()}


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_the_stream_adds_up_to_the_whole_decoding(name: str, text: str) -> None:
    backend = TOKENIZERS[name]
    ids = backend.encode(text, add_special_tokens=False).ids
    stream = TextStream(backend)
    pieces = [stream.push([i]) for i in ids] + [stream.push([], final=True)]
    assert "".join(pieces) == backend.decode(ids)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_characters_of_several_tokens_come_out_whole(name: str) -> None:
    backend = TOKENIZERS[name]
    stream = TextStream(backend)
    ids = backend.encode("a 🙂 b 日本", add_special_tokens=False).ids
    pieces = [stream.push([i]) for i in ids]
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) == "a 🙂 b 日本"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_random_tokens_never_stall_the_stream(name: str) -> None:
    backend = TOKENIZERS[name]
    rng = random.Random(0)
    ids = [rng.randrange(3, backend.get_vocab_size()) for _ in range(400)]
    silent, stream = 0, TextStream(backend)
    for i in ids:
        silent = 0 if stream.push([i]) else silent + 1
        assert silent < 16


def test_special_tokens_have_no_text() -> None:
    backend = TOKENIZERS["byte_fallback"]
    ids = backend.encode("the hat", add_special_tokens=False).ids
    assert TextStream(backend).push([*ids[:1], 2, *ids[1:]], final=True) == "the hat"


def read_letter_by_letter(text: str, stop: list[str]) -> str:
    for end in range(1, len(text) + 1):
        hits = [s for s in stop if text[:end].endswith(s)]
        if hits:
            return text[: end - len(max(hits, key=len))]
    return text


@settings(max_examples=300, deadline=None)
@given(
    text=st.text("abc", max_size=30),
    stop=st.lists(st.text("abc", min_size=1, max_size=4), max_size=4),
    cuts=st.lists(st.integers(0, 30), max_size=8),
)
def test_stop_strings_are_found_however_the_text_is_cut(text, stop, cuts) -> None:
    matcher, result, start = StopMatcher(stop), "", 0
    for cut in [*sorted(c for c in cuts if c < len(text)), len(text)]:
        result += matcher.push(text[start:cut])
        start = cut
    result += matcher.flush()
    assert result == read_letter_by_letter(text, stop)
    assert matcher.stopped == any(s in text for s in stop)


def test_a_stop_string_across_tokens_is_cut_and_can_be_kept() -> None:
    backend = TOKENIZERS["byte_level"]
    ids = backend.encode("hello STOP world", add_special_tokens=False).ids
    for include, expected in ((False, "hello "), (True, "hello STOP")):
        stream = TextStream(backend, ["STOP"], include)
        assert "".join(stream.push([i]) for i in ids) == expected
        assert stream.stopped


@pytest.mark.parametrize("name", TOKENIZERS)
def test_token_bytes_add_up_to_the_text(name: str) -> None:
    backend = TOKENIZERS[name]
    table = TokenBytes(backend)
    ids = backend.encode("the naïve 🙂", add_special_tokens=False).ids
    assert b"".join(table.token_bytes(i) for i in ids).decode().strip() == "the naïve 🙂"
    assert table.token_text(backend.token_to_id("</s>")) == "</s>"


def test_what_stands_before_an_answer_decides_about_its_first_space() -> None:
    backend = TOKENIZERS["byte_fallback"]
    tokens = TokenBytes(backend)
    ids = backend.encode("the hat", add_special_tokens=False).ids
    end = backend.token_to_id("</s>")
    for before, text in (([], "the hat"), (ids, " the hat"), ([*ids, end], "the hat")):
        stream = TextStream(backend, context=tokens.last_text(before))
        assert "".join(stream.push([i]) for i in ids) + stream.push([], final=True) == text
    assert len(tokens.last_text(ids * 1000)) < 20


def test_no_stop_string_is_looked_for_in_what_is_skipped() -> None:
    backend = TOKENIZERS["byte_level"]
    for said in ("\n\none\n two", "\none\n two", "one\n two"):
        stream = TextStream(backend, ["\n"], skip="\n\n")
        assert "".join(stream.push([i]) for i in backend.encode(said).ids) == "one"
        assert stream.stopped


def test_tokens_begin_where_the_docstring_says() -> None:
    backend = TOKENIZERS["byte_fallback"]
    ids = [1, *backend.encode("the 世", add_special_tokens=False).ids]
    assert TokenBytes(backend).starts(ids, "the 世") == [0, 0, 2, 3, 4, 4, 4]
    assert TokenBytes(backend).starts(ids, " the 世") == [0, 0, 3, 4, 5, 5, 5]


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_tokens_begin_where_their_text_does(text: str) -> None:
    backend = TOKENIZERS["byte_level"]
    ids = backend.encode(text, add_special_tokens=False).ids
    tokens = TokenBytes(backend)
    for token_id, start in zip(ids, tokens.starts(ids, text), strict=True):
        raw = tokens.token_bytes(token_id)
        here = text[start:].encode()
        assert any(here[i:].startswith(raw) for i in range(4))
