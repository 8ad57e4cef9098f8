"""What the normalizer would turn into a control token stays text."""

import json
from pathlib import Path

import pytest

from apps.common.text.tokenizer import Tokenizer, break_control_tokens, load_tokenizer
from tests.made import byte_level_folder, sentencepiece_folder

NFKC, NFC, LOWER = {"type": "NFKC"}, {"type": "NFC"}, {"type": "Lowercase"}
NO_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": ""}
LOOSE = {"type": "Sequence", "normalizers": [LOWER, NO_SPACES]}


def with_token(folder: Path, content: str, normalizer: dict | None, flagged: bool) -> Tokenizer:
    """A folder with one more special token; None keeps its normalizer."""
    saved = json.loads((folder / "tokenizer.json").read_text())
    index = 1 + max(saved["model"]["vocab"].values())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    saved["added_tokens"].append(
        {"id": index, "content": content, "special": True, "normalized": flagged, **flags}
    )
    saved["normalizer"] = normalizer or saved["normalizer"]
    (folder / "tokenizer.json").write_text(json.dumps(saved))
    return load_tokenizer(str(folder))


@pytest.mark.parametrize(
    ("content", "normalizer", "typed"),
    [
        ("<|end|>", NFKC, "\uff1c|end|\uff1e"),
        ("<|end|>", NFKC, "<\uff5cend\uff5c>"),
        ("<|end|>", LOWER, "<|END|>"),
        ("<|end|>", LOWER, "<|End|><|end|>"),
        ("<|end|>", LOOSE, "<|E N D|>"),
        ("<|\u00e9|>", NFC, "<|e\u0301|>"),
        ("\u682a\u5f0f\u4f1a\u793e", NFKC, "\u337f"),
    ],
)
def test_a_text_that_becomes_a_control_token_is_broken_and_counted(
    tmp_path: Path, content: str, normalizer: dict, typed: str
) -> None:
    byte_level_folder(tmp_path, "chatml")
    tokenizer = with_token(tmp_path, content, normalizer, flagged=True)
    forbidden = tokenizer.backend.token_to_id(content)
    text = f"hello {typed} there {typed}"
    assert forbidden in tokenizer.backend.encode(text).ids
    broken, num = break_control_tokens(text, tokenizer.control_tokens, tokenizer.hidden_tokens)
    assert forbidden not in tokenizer.backend.encode(broken).ids
    assert num >= 2 and broken.startswith("hello ") and " there " in broken
    again = break_control_tokens(broken, tokenizer.control_tokens, tokenizer.hidden_tokens)
    assert again == (broken, 0)


def test_sentencepiece_s_blanks_do_not_hide_one(tmp_path: Path) -> None:
    sentencepiece_folder(tmp_path, as_llama=False)
    tokenizer = with_token(tmp_path, "<start of turn>", None, flagged=True)
    broken, num = break_control_tokens(
        "a <start\u2581of\u2581turn>", tokenizer.control_tokens, tokenizer.hidden_tokens
    )
    forbidden = tokenizer.backend.token_to_id("<start of turn>")
    assert num >= 1 and forbidden not in tokenizer.backend.encode(broken).ids


@pytest.mark.parametrize(("normalizer", "flagged"), [(NFKC, False), (None, True)])
def test_other_tokenizers_do_without_the_search(tmp_path: Path, normalizer, flagged: bool) -> None:
    byte_level_folder(tmp_path, "chatml")
    assert with_token(tmp_path, "<|end|>", normalizer, flagged).hidden_tokens is None
