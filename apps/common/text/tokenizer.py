"""A model folder's tokenizer, through the `tokenizers` package alone (no torch, no transformers).

    tokenizer = load_tokenizer("path/to/model")
    ids = tokenizer.backend.encode("text", add_special_tokens=False).ids

Its ids are those of `AutoTokenizer.from_pretrained(folder)` of transformers 5, which rebuilds LLaMA
tokenizers from their vocabulary instead of taking tokenizer.json as it is: `_as_transformers`.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import tokenizers

from apps.common.errors import InputError, NotFoundError

SPECIAL_TOKEN_NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_LLAMA_DEFAULTS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A loaded tokenizer with its special tokens."""

    backend: tokenizers.Tokenizer
    special_tokens: dict[str, str]
    """`bos_token`, `eos_token`, ... -> the token's text; only those that the folder defines."""
    control_tokens: tuple[str, ...]
    """Texts of all added tokens flagged special: what a message must not smuggle in."""
    digest: str
    """blake2b of the tokenizer as it is used; equal digests give equal ids."""

    @property
    def pad_id(self) -> int:
        """Id for the unused tail of a row: pad, else unk, else eos, else 0."""
        for name in ("pad_token", "unk_token", "eos_token"):
            found = self.backend.token_to_id(self.special_tokens.get(name, ""))
            if found is not None:
                return found
        return 0


def load_tokenizer(folder: str) -> Tokenizer:
    """The tokenizer of a local model or tokenizer folder.

    Raises NotFoundError when there is no such folder, InputError when it has no tokenizer.json.
    """
    path = Path(folder)
    if not path.is_dir():
        raise NotFoundError(f"No tokenizer folder {folder!r}; expected a local folder.")
    if not (path / "tokenizer.json").is_file():
        raise InputError(_missing_tokenizer_json(path))
    config = _config(path)
    special_tokens = read_special_tokens(folder)
    description = _as_transformers(read_json(path / "tokenizer.json"), config)
    backend = tokenizers.Tokenizer.from_str(json.dumps(description))
    backend.no_padding()
    backend.no_truncation()
    _add_missing_tokens(backend, config, special_tokens)
    control_tokens = tuple(
        sorted(t.content for t in backend.get_added_tokens_decoder().values() if t.special)
    )
    digest = hashlib.blake2b(backend.to_str().encode(), digest_size=16).hexdigest()
    return Tokenizer(backend, special_tokens, control_tokens, digest)


def read_special_tokens(folder: str | Path) -> dict[str, str]:
    """Named special tokens of a folder, as transformers hands them to the chat template."""
    path = Path(folder)
    config = _config(path)
    found: dict[str, Any] = dict(_LLAMA_DEFAULTS) if _is_llama(config) else {}
    found.update(read_json(path / "special_tokens_map.json"))
    found.update(config)
    return {
        name: found[name] if isinstance(found[name], str) else found[name]["content"]
        for name in SPECIAL_TOKEN_NAMES
        if found.get(name)
    }


def break_control_tokens(text: str, control_tokens: tuple[str, ...]) -> tuple[str, int]:
    """Put a space after the first character of each control token's text; also their number.

    `</s>` typed by a person (strikethrough in HTML, say) would otherwise become the end-of-sequence
    token: in training it would teach the model to stop there, at serving it would let a user write
    the assistant's turns. The space is visible on purpose: an invisible character would come back
    in copied code.
    """
    pattern = _control_pattern(control_tokens)
    if pattern is None:
        return text, 0
    num_broken = 0
    while True:
        text, found = pattern.subn(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        if not found:
            return text, num_broken
        num_broken += found


@lru_cache(maxsize=16)
def _control_pattern(control_tokens: tuple[str, ...]) -> re.Pattern[str] | None:
    breakable = [t for t in control_tokens if len(t) > 1 and t[1] != " "]
    breakable.sort(key=len, reverse=True)
    return re.compile("|".join(map(re.escape, breakable))) if breakable else None


def _missing_tokenizer_json(path: Path) -> str:
    if any(path.glob("*.model")):
        return (
            f"{path} has only a SentencePiece model; expected a tokenizer.json. Convert it once: "
            'python -c "from transformers import AutoTokenizer as T; '
            f"T.from_pretrained('{path}').save_pretrained('{path}')\""
        )
    return f"{path} holds no tokenizer.json; expected a Hugging Face model or tokenizer folder."


def read_json(path: Path) -> dict[str, Any]:
    """A file of a model folder; empty when the folder has none."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _config(path: Path) -> dict[str, Any]:
    """tokenizer_config.json, its class completed from config.json as AutoTokenizer does."""
    config = read_json(path / "tokenizer_config.json")
    if not config.get("tokenizer_class"):
        model = read_json(path / "config.json")
        by_type = {"llama": "LlamaTokenizer"}.get(model.get("model_type", ""))
        config["tokenizer_class"] = model.get("tokenizer_class") or by_type
    return config


def _is_llama(config: dict[str, Any]) -> bool:
    return config.get("tokenizer_class") in ("LlamaTokenizer", "LlamaTokenizerFast")


def _as_transformers(description: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """tokenizer.json as transformers 5 uses it (models/llama/tokenization_llama.py)."""
    if not _is_llama(config) or description["model"].get("type") != "BPE":
        return description
    scheme = "always" if config.get("legacy", False) else "first"
    if config.get("add_prefix_space") is False:
        scheme = "never"
    model = {
        **description["model"],
        "fuse_unk": True,
        "byte_fallback": True,
        "dropout": None,
        "unk_token": None,
        "ignore_merges": False,
    }
    metaspace = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": scheme,
        "split": False,
    }
    return {**description, "model": model, "normalizer": None, "pre_tokenizer": metaspace}


def _add_missing_tokens(
    backend: tokenizers.Tokenizer, config: dict[str, Any], special_tokens: dict[str, str]
) -> None:
    """Added tokens that only tokenizer_config.json knows, and named tokens not yet special."""
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    extra = [
        tokenizers.AddedToken(
            token["content"],
            single_word=token.get("single_word", False),
            lstrip=token.get("lstrip", False),
            rstrip=token.get("rstrip", False),
            normalized=token.get("normalized", False),
            special=token.get("special", False),
        )
        for _, token in sorted(
            config.get("added_tokens_decoder", {}).items(), key=lambda item: int(item[0])
        )
        if token["content"] not in known
    ]
    named = set(special_tokens.values()) - known - {token.content for token in extra}
    extra += [tokenizers.AddedToken(text, special=True) for text in sorted(named)]
    backend.add_tokens(extra)  # pyright: ignore[reportUnknownMemberType]
