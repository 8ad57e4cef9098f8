"""What a model folder says of itself: its JSON files and its index of weights, read in one place.

    settings = read_settings("path/to/model")       # a local folder, s3:// or gs://
    settings.positions, settings.eos_token_ids      # the same for training, serving and planning

A file that is not there says nothing; who needs what it would have said asks for it by name.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from apps.common.errors import ConfigError, InputError, NotFoundError
from apps.common.files import storage
from apps.common.files.config_defaults import CONFIG_DEFAULTS

CONFIG = "config.json"
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"
INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
_LFS = b"version "
"""the first bytes of a git-lfs pointer (its specification, version 1)"""

_DEFAULT_POSITIONS = 2048
_ALWAYS_SLIDING = ("gemma2", "gemma3_text", "mistral", "mixtral", "phi3")
"""model types whose window is in use wherever it is set; others have a switch for it"""
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Widths and counts of a decoder-only transformer."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    is_tied: bool
    """the output matrix is the embedding"""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """config.json and generation_config.json of one model."""

    config: Mapping[str, object]
    generation: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type", ""))

    @property
    def architecture(self) -> str:
        """Name of the class in transformers; `none` where the folder does not say."""
        return (cast(list[str] | None, self.config.get("architectures")) or ["none"])[0]

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding; 0 where the folder does not say."""
        return self.integer("vocab_size") or 0

    @property
    def positions(self) -> int | None:
        """Longest sequence that the model has positions for, in tokens."""
        return self.integer("max_position_embeddings")

    @property
    def window_tokens(self) -> int | None:
        """How far back some or all layers see; None where every layer sees everything."""
        is_used = self.config.get("use_sliding_window", self.model_type in _ALWAYS_SLIDING)
        return (self.integer("sliding_window") or None) if is_used else None

    @property
    def context_without_window(self) -> int:
        """Longest sequence for software that knows no sliding windows: up to there they agree."""
        positions = self.positions or _DEFAULT_POSITIONS
        return min(positions, self.window_tokens or positions)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer: generation_config.json's, else config.json's, else none."""
        for said in (self.generation, self.config):
            eos = said.get("eos_token_id")
            if isinstance(eos, int):
                return (eos,)
            if isinstance(eos, list):
                return tuple(cast(list[int], eos))
        return ()

    @property
    def sampling(self) -> dict[str, float]:
        """Sampling defaults that the folder states."""
        stated = {name: self.generation.get(name) for name in _SAMPLING}
        return {name: value for name, value in stated.items() if isinstance(value, int | float)}

    @property
    def rope(self) -> dict[str, object]:
        """rope_type, rope_theta, original_max_position_embeddings and what that type needs.

        transformers 5 keeps all of it in rope_parameters, older versions in two places.
        """
        stated = self.config.get("rope_parameters") or self.config.get("rope_scaling")
        rope = cast(dict[str, object], stated or {})
        return {
            **rope,
            "rope_type": rope.get("rope_type") or rope.get("type") or "default",
            "rope_theta": rope.get("rope_theta") or self.config.get("rope_theta") or 10000.0,
            "original_max_position_embeddings": rope.get("original_max_position_embeddings")
            or self.positions,
        }

    def integer(self, key: str) -> int | None:
        """A whole number of config.json, or its class's default; None for null or neither."""
        value = self.config.get(key, self._default(key))
        if value is None or isinstance(value, int):
            return value
        raise ConfigError(f"config.json says {key} {value!r}; expected a whole number")

    def _default(self, key: str) -> int | None:
        return CONFIG_DEFAULTS.get(self.model_type, {}).get(key)

    def sizes(self) -> Sizes:
        """Raises ConfigError that names the keys which config.json lacks, or what is no size."""
        config = self.config
        missing = [key for key in _SIZE_KEYS if config.get(key) is None]
        if missing:
            raise ConfigError(
                f"config.json lacks {', '.join(missing)}; expected a LLaMA-family model: "
                "give the folder of one, or a shape by name such as llama-7b"
            )
        for key in (*_SIZE_KEYS, "num_key_value_heads", "head_dim"):
            if (size := self.integer(key)) is not None and size < 1:
                raise ConfigError(f"config.json says {key} {size}; expected 1 or more")
        layers, hidden, heads, inner = (
            self.integer(key) or 0
            for key in (
                "num_hidden_layers",
                "hidden_size",
                "num_attention_heads",
                "intermediate_size",
            )
        )
        return Sizes(
            num_layers=layers,
            hidden_size=hidden,
            intermediate_size=inner,
            num_heads=heads,
            num_kv_heads=self.integer("num_key_value_heads") or heads,
            head_dim=self.integer("head_dim") or hidden // heads,
            vocab_size=self.vocab_size,
            is_tied=bool(config.get("tie_word_embeddings", self._default("tie_word_embeddings"))),
        )


_SIZE_KEYS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "intermediate_size",
)


def read_settings(folder: str | Path) -> ModelSettings:
    """Of a folder (path or URI); both parts are empty where their file is not there."""
    return ModelSettings(read_json(folder, CONFIG), read_json(folder, GENERATION))


def read_json(folder: str | Path, name: str) -> dict[str, object]:
    """One JSON file of a model folder (path or URI); empty where the folder has none."""
    uri = storage.join(str(folder), name)
    try:
        said: object = storage.read_json(uri) if storage.exists(uri) else None
    except ValueError as error:
        raise InputError(
            f"The {name} of {folder} cannot be used ({error}); expected JSON: get the file again."
        ) from error
    if said is None:
        return {}
    if not isinstance(said, dict):
        raise InputError(
            f"The {name} of {folder} cannot be used (it holds a {type(said).__name__}); expected a "
            "JSON object: get the file again."
        )
    return cast(dict[str, object], said)


def weight_files(folder: str | Path) -> dict[str, str]:
    """File name of each stored tensor of a local folder, chosen as transformers chooses.

    model.safetensors before the index; other *.safetensors files are not the model's. Empty where
    there is neither.
    """
    path = Path(folder)
    if (path / WEIGHTS).is_file():
        return dict.fromkeys(stored_tensors(path / WEIGHTS), WEIGHTS)
    return _indexed(path) if (path / INDEX).is_file() else {}


def _indexed(folder: Path) -> dict[str, str]:
    """What the files that an index names hold, whatever else it says of them.

    As transformers: the last file that holds a tensor counts, and tensors that the index does not
    name are the model's too.
    """
    said = read_json(folder, INDEX).get("weight_map")
    files = cast(dict[str, object], said) if isinstance(said, dict) else {}
    if not files or not all(isinstance(f, str) and Path(f).name == f for f in files.values()):
        raise InputError(
            f"The {INDEX} of {folder} has no weight_map of tensors and their files; download the "
            "model again."
        )
    named = cast(dict[str, str], files)
    held = {
        name: file for file in sorted({*named.values()}) for name in stored_tensors(folder / file)
    }
    if lacking := named.keys() - held.keys():
        name = min(lacking)
        raise InputError(
            f"The index of {folder} names {name} in {named[name]}, which does not hold it; "
            "download the model again."
        )
    return held


def stored_tensors(file: str | Path) -> dict[str, tuple[str, list[int]]]:
    """Type (such as BF16) and shape of each tensor of a safetensors file, from its header.

    The header is JSON behind its length in 8 bytes, and the tensors lie behind it without a gap
    (huggingface/safetensors, "Format"). Raises NotFoundError without the file, InputError for one
    that is no such file or a part of one: its size must be what the header tells.
    """
    if not os.path.isfile(file):
        raise NotFoundError(f"{file} is missing, and a model needs it; download the model again.")
    size = os.path.getsize(file)
    with open(file, "rb") as handle:
        start = handle.read(8)
        header_bytes = int.from_bytes(start, "little")
        text = handle.read(header_bytes) if header_bytes <= size - 8 else b""
    if start == _LFS:
        raise InputError(
            f"{file} is a pointer of git-lfs and not the weights that it stands for; run `git lfs "
            "pull` in its folder, or download the model again."
        )
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        ends = [entry["data_offsets"][1] for entry in header.values()]
        told = 8 + header_bytes + max(ends, default=0)
        tensors = {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file} is no whole safetensors file ({size:,} bytes, without a header that can be "
            "read); download the model again."
        ) from error
    if told != size:
        raise InputError(
            f"{file} has {size:,} bytes and {told:,} by its own header: it was cut short or "
            "changed; download the model again."
        )
    return tensors
