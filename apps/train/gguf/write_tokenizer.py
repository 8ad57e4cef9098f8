"""A folder's tokenizer and chat template in the words of GGUF; tokenizer.py reads them back."""

import json
import re
from collections.abc import Sequence

import gguf

from apps.common.errors import InputError
from apps.common.files.model_settings import read_settings
from apps.common.text.templates import load_template
from apps.common.text.tokenizer import Tokenizer, load_tokenizer
from apps.train.gguf.same_ids import (
    add_tokens,
    differing,
    joins_alike,
    probes,
    splits_alike,
)
from apps.train.gguf.tokenizer import PRE_TOKENIZERS, byte_level, sentencepiece

_Type = gguf.TokenType


def write_tokenizer(writer: gguf.GGUFWriter, folder: str, num_embeddings: int) -> None:
    """Raises InputError where GGUF has no words for the tokenizer."""
    tokenizer = load_tokenizer(folder)
    model = json.loads(tokenizer.backend.to_str())["model"]
    texts, types = _tokens(tokenizer, num_embeddings)
    merges = [tuple(merge) for merge in model.get("merges", [])]
    if model["type"] != "BPE":
        raise InputError(f"--gguf knows no {model['type']} tokenizers; expected BPE.")
    if len(texts) > num_embeddings:
        raise InputError(
            f"The tokenizer of {folder} has {len(texts)} ids and the model {num_embeddings} rows "
            "for them; llama.cpp expects a row for each, so leave --gguf out."
        )
    checks = probes(folder, tokenizer)
    if model.get("byte_fallback"):
        _write_sentencepiece(writer, tokenizer, texts, merges, checks)
    else:
        _write_byte_level(writer, tokenizer, texts, merges, checks)
    writer.add_token_list(texts)
    writer.add_token_types(types)
    _write_special(writer, folder, tokenizer)


def _tokens(tokenizer: Tokenizer, num_embeddings: int) -> tuple[list[str], list[int]]:
    """Text and type of every row of the embedding; rows without a token get one that is unused."""
    added = tokenizer.backend.get_added_tokens_decoder()
    unknown = tokenizer.special_tokens.get("unk_token")
    texts, types = list[str](), list[int]()
    for index in range(max(num_embeddings, tokenizer.backend.get_vocab_size())):
        text = tokenizer.backend.id_to_token(index)
        texts.append(f"[PAD{index}]" if text is None else text)
        if text is None:
            types.append(_Type.UNUSED)
        elif index in added:
            is_unknown = text == unknown
            special = _Type.UNKNOWN if is_unknown else _Type.CONTROL
            types.append(special if added[index].special else _Type.USER_DEFINED)
        else:
            types.append(_Type.BYTE if re.fullmatch("<0x[0-9A-F]{2}>", text) else _Type.NORMAL)
    return texts, types


def _write_byte_level(
    writer: gguf.GGUFWriter,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    merges: Sequence[tuple[str, str]],
    checks: Sequence[str],
) -> None:
    for name in PRE_TOKENIZERS:
        candidate = byte_level(name, texts, merges)
        if not (splits_alike(candidate, tokenizer) and joins_alike(candidate, tokenizer)):
            continue
        add_tokens(candidate, tokenizer)
        if (text := differing(candidate, tokenizer, checks)) is not None:
            raise InputError(_differs(text))
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(name)
        writer.add_token_merges([" ".join(merge) for merge in merges])
        return
    raise InputError(
        "--gguf knows no name for the way in which this tokenizer splits text; expected that of "
        f"{', '.join(PRE_TOKENIZERS)}, each with llama.cpp's use of merges. Leave --gguf out and "
        "serve the folder itself."
    )


def _differs(text: str) -> str:
    return (
        f"--gguf has no words for this tokenizer: llama.cpp would split {text[:60]!r} into other "
        "ids than the model was trained with. Leave --gguf out and serve the folder itself."
    )


def _write_sentencepiece(
    writer: gguf.GGUFWriter,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    merges: Sequence[tuple[str, str]],
    checks: Sequence[str],
) -> None:
    """Scores are minus the rank of the merge that makes a token: the first merges come first."""
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges, start=1):
        ranks.setdefault(left + right, rank)
    scores = [-float(ranks.get(text, 0)) for text in texts]
    unknown = tokenizer.special_tokens.get("unk_token", "<unk>")
    differences = list[str]()
    for prepends in (True, False):
        candidate = sentencepiece(texts, scores, unknown, prepends=prepends)
        add_tokens(candidate, tokenizer)
        if (text := differing(candidate, tokenizer, checks)) is None:
            writer.add_tokenizer_model("llama")
            writer.add_token_scores(scores)
            writer.add_add_space_prefix(prepends)
            return
        differences.append(text)
    raise InputError(_differs(differences[0]))


def _write_special(writer: gguf.GGUFWriter, folder: str, tokenizer: Tokenizer) -> None:
    """Named tokens, what ends a turn, and the chat template."""
    named = {
        name: tokenizer.backend.token_to_id(text) for name, text in tokenizer.special_tokens.items()
    }
    stops = read_settings(folder).eos_token_ids
    eos = named.get("eos_token", stops[0] if stops else None)
    adders = {
        "bos_token": writer.add_bos_token_id,
        "unk_token": writer.add_unk_token_id,
        "pad_token": writer.add_pad_token_id,
    }
    for name, add in adders.items():
        if (index := named.get(name)) is not None:
            add(index)
    if eos is not None:
        writer.add_eos_token_id(eos)
    if others := [stop for stop in stops if stop != eos]:
        writer.add_eot_token_id(others[0])
    _write_around(writer, tokenizer, named.get("bos_token"), eos)
    template = load_template(folder, tokenizer)
    writer.add_chat_template(_without_markers(template.source))


def _write_around(
    writer: gguf.GGUFWriter, tokenizer: Tokenizer, bos: int | None, eos: int | None
) -> None:
    """What the tokenizer puts around a text: GGUF knows a first and a last token."""
    bare = tokenizer.backend.encode("a", add_special_tokens=False).ids
    whole = tokenizer.backend.encode("a").ids
    for adds_bos, adds_eos in ((False, False), (True, False), (False, True), (True, True)):
        if [bos] * adds_bos + bare + [eos] * adds_eos == whole:
            writer.add_add_bos_token(adds_bos)
            writer.add_add_eos_token(adds_eos)
            return
    texts = [tokenizer.backend.id_to_token(index) for index in whole]
    raise InputError(
        f"--gguf cannot write a tokenizer that makes {texts} of 'a'; expected nothing around it "
        "but its bos_token and its eos_token. Leave --gguf out and serve the folder itself."
    )


def _without_markers(source: str) -> str:
    """llama.cpp knows no generation blocks; blocks that are always taken trim the same blanks."""
    source = re.sub(r"\{%(-?)\s*generation\s*(-?)%\}", r"{%\1 if true \2%}", source)
    return re.sub(r"\{%(-?)\s*endgeneration\s*(-?)%\}", r"{%\1 endif \2%}", source)
