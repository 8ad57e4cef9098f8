"""A model folder's tokenizer, through the `tokenizers` package alone (no torch, no transformers).

    tokenizer = load_tokenizer("path/to/model")
    ids = tokenizer.backend.encode("text", add_special_tokens=False).ids

Its ids are those of `AutoTokenizer.from_pretrained(folder)` of the pinned transformers, which
builds some tokenizers anew instead of taking tokenizer.json as it is: see tokenizer_class.py.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

import tokenizers

from apps.common.errors import InputError, NotFoundError
from apps.common.files.model_settings import (
    ADDED_TOKENS,
    CONFIG,
    SPECIAL_TOKENS,
    TOKENIZER,
    TOKENIZER_CONFIG,
    read_json,
)
from apps.common.text.hidden_tokens import HiddenTokens
from apps.common.text.tokenizer_class import REBUILT, Json, class_of, rebuilt, text_of

SPECIAL_TOKEN_NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


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
    hidden_tokens: HiddenTokens | None = None
    """What finds control tokens that the normalizer makes of other texts; None where it cannot."""

    @property
    def pad_id(self) -> int:
        """Id for the unused tail of a row: pad, else unk, else eos, else 0."""
        for name in ("pad_token", "unk_token", "eos_token"):
            token_id = self.backend.token_to_id(self.special_tokens.get(name, ""))
            if token_id is not None:
                return token_id
        return 0


def load_tokenizer(folder: str) -> Tokenizer:
    """The tokenizer of a local model or tokenizer folder.

    Raises NotFoundError when there is no such folder, InputError when it has no tokenizer.json.
    """
    path = Path(folder)
    if not path.is_dir():
        raise NotFoundError(f"No tokenizer folder {folder!r}; expected a local folder.")
    if not (path / TOKENIZER).is_file():
        raise InputError(_missing_tokenizer_json(path))
    config, description = read_json(path, TOKENIZER_CONFIG), read_json(path, TOKENIZER)
    chosen = class_of(config, read_json(path, CONFIG))
    if not isinstance(description.get("model"), Mapping):
        raise InputError(
            f"The {TOKENIZER} of {path} holds no model; expected a vocabulary as the tokenizers "
            "package saves it: get the file again."
        )
    used = rebuilt(description, chosen, config) if chosen in REBUILT else description
    backend = tokenizers.Tokenizer.from_str(json.dumps(used))
    backend.no_padding()
    backend.no_truncation()
    special_tokens = read_special_tokens(folder)
    _add_tokens(backend, _added_tokens(path, config, description), special_tokens, config)
    control_tokens = tuple(
        sorted(t.content for t in backend.get_added_tokens_decoder().values() if t.special)
    )
    digest = hashlib.blake2b(backend.to_str().encode(), digest_size=16).hexdigest()
    hidden_tokens = HiddenTokens.of(backend)
    return Tokenizer(backend, special_tokens, control_tokens, digest, hidden_tokens)


def read_special_tokens(folder: str | Path) -> dict[str, str]:
    """Named special tokens of a folder, as transformers hands them to the chat template."""
    config = read_json(folder, TOKENIZER_CONFIG)
    chosen = class_of(config, read_json(folder, CONFIG))
    named: dict[str, object] = dict(REBUILT[chosen].special_tokens) if chosen in REBUILT else {}
    named.update(config)
    if "added_tokens_decoder" not in config:  # a folder of an older layout
        named.update(read_json(folder, SPECIAL_TOKENS))
    return {name: text_of(named[name]) for name in SPECIAL_TOKEN_NAMES if named.get(name)}


def break_control_tokens(
    text: str, control_tokens: tuple[str, ...], hidden: HiddenTokens | None = None
) -> tuple[str, int]:
    """Put a space after the first character of each control token's text; also their number.

    `</s>` typed by a person (strikethrough in HTML, say) would otherwise become the end-of-sequence
    token: in training it would teach the model to stop there, at serving it would let a user write
    the assistant's turns. The space is visible on purpose: an invisible character would come back
    in copied code. `hidden` finds what becomes a control token only by the tokenizer's normalizer.
    """
    pattern = _control_pattern(control_tokens)
    num_broken, num_replaced = 0, 1
    while pattern is not None and num_replaced:
        text, num_replaced = pattern.subn(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        num_broken += num_replaced
    if hidden is None:
        return text, num_broken
    text, num_hidden = hidden.broken(text)
    return text, num_broken + num_hidden


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


def _added_tokens(path: Path, config: Json, description: Json) -> list[tokenizers.AddedToken]:
    """In the order of their ids: tokenizer_config.json's, or in older layouts everybody else's."""
    listed: dict[int, Json] = {}
    if "added_tokens_decoder" in config:
        stated = cast(dict[str, Json], config["added_tokens_decoder"])
        listed = {int(i): token for i, token in stated.items()}
    else:
        special = set(read_special_tokens(path).values()) | set(_more_special_tokens(config))
        for text, i in cast(dict[str, int], read_json(path, ADDED_TOKENS)).items():
            is_special = text in special
            listed[i] = {"content": text, "special": is_special, "normalized": not is_special}
        tokens = cast(list[Json], description.get("added_tokens", []))
        listed |= {cast(int, token["id"]): token for token in tokens}
    return [_added_token(token) for _, token in sorted(listed.items())]


def _added_token(token: Json) -> tokenizers.AddedToken:
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    flags = {name: bool(token[name]) for name in names if name in token}
    return tokenizers.AddedToken(text_of(token), **flags)


def _more_special_tokens(config: Json) -> list[str]:
    """Special tokens without a role, such as <|im_start|>."""
    key = "extra_special_tokens"
    more = cast(Json | list[object], config.get(key, config.get("additional_special_tokens")) or [])
    return [text_of(token) for token in (more.values() if isinstance(more, Mapping) else more)]


def _add_tokens(
    backend: tokenizers.Tokenizer,
    added: list[tokenizers.AddedToken],
    special_tokens: Mapping[str, str],
    config: Json,
) -> None:
    """What the backend lacks or knows otherwise, then special tokens that nobody listed."""
    there = {repr(token) for token in backend.get_added_tokens_decoder().values()}
    missing = [token for token in added if repr(token) not in there]
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    known |= {token.content for token in missing}
    named = [*special_tokens.values(), *_more_special_tokens(config)]
    for token in missing:
        token.special = token.special or token.content in special_tokens.values()
    unlisted = [text for text in dict.fromkeys(named) if text not in known]
    missing += [tokenizers.AddedToken(text, special=True) for text in unlisted]
    backend.add_tokens(missing)  # pyright: ignore[reportUnknownMemberType]
