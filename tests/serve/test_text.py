import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from apps.serve.text import StopMatcher, TextStream, TokenBytes

CORPUS = [
    "hello world, the cat sat on the mat",
    "naïve café 你好 世界 🙂",
    "def f(x):\n    return x",
] * 4


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet,
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As LLaMA's: a space is a letter, what the vocabulary lacks is spelled in bytes."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab |= {f"<0x{b:02X}>": 3 + b for b in range(256)}
    for piece in [*"abcdefghijklmnopqrstuvwxyz", "\u2581", "\u2581t", "\u2581th", "th", "he", "é"]:
        vocab[piece] = len(vocab)
    merges = [("\u2581", "t"), ("\u2581t", "h"), ("t", "h"), ("h", "e")]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


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
