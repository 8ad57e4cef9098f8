"""SentencePiece vocabularies in a GGUF file spell text as SentencePiece does."""

import io
from pathlib import Path

import gguf
import pytest
import sentencepiece

from apps.train.gguf.metadata import open_gguf
from apps.train.gguf.tokenizer import read_tokenizer
from tests.train.gguf.files import TEXT, finish


@pytest.fixture
def pieces() -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT]),
        model_writer=model,
        vocab_size=420,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def test_a_sentencepiece_vocabulary_gives_its_ids(pieces, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    numbers = range(pieces.vocab_size())
    writer.add_tokenizer_model("llama")
    writer.add_token_list([pieces.id_to_piece(i) for i in numbers])
    writer.add_token_scores([pieces.get_score(i) for i in numbers])
    writer.add_token_types([kind(pieces, i) for i in numbers])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    read = read_tokenizer(open_gguf(str(finish(writer, tmp_path / "m.gguf"))))
    assert read.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    for text in (TEXT, "still  two blanks", "日本 \t tab", " leading", "12,345"):
        encoded = read.backend.encode(text, add_special_tokens=False)
        assert encoded.ids == pieces.encode(text), text
        assert read.backend.decode(encoded.ids) == text


def kind(pieces: sentencepiece.SentencePieceProcessor, index: int) -> int:
    if pieces.is_unknown(index):
        return gguf.TokenType.UNKNOWN
    if pieces.is_control(index):
        return gguf.TokenType.CONTROL
    return gguf.TokenType.BYTE if pieces.is_byte(index) else gguf.TokenType.NORMAL
