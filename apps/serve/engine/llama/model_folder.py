"""What the engines need to know of a Hugging Face model folder, read from its JSON files.

Without transformers: importing it takes a replica 3 s and 200 MB, for a dozen numbers.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.common.errors import ConfigError, NotFoundError

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Numbers of a LLaMA-family model."""

    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    norm_eps: float
    context_tokens: int
    """Positions it was trained for, or its sliding window where that is less."""
    is_tied: bool
    """The output matrix is the embedding."""
    rope: dict[str, Any]
    """As in config.json: rope_type, rope_theta and what that type needs."""


def read_shape(folder: str | Path) -> Shape:
    """Raises NotFoundError without a config.json, ConfigError for a model of another kind."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise NotFoundError(f"{folder} has no config.json; give a Hugging Face model folder")
    config = _read(path)
    architecture = (config.get("architectures") or ["none"])[0]
    activation = config.get("hidden_act", "silu")
    if architecture not in ARCHITECTURES or activation != "silu":
        raise ConfigError(
            f"the torch engine cannot run {architecture} with {activation}; it knows "
            f"{', '.join(ARCHITECTURES)} with silu: serve this model with engine: vllm"
        )
    heads = config["num_attention_heads"]
    return Shape(
        num_layers=config["num_hidden_layers"],
        hidden_size=config["hidden_size"],
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        vocab_size=config["vocab_size"],
        norm_eps=config.get("rms_norm_eps", 1e-6),
        context_tokens=_context_tokens(config, architecture),
        is_tied=config.get("tie_word_embeddings", False),
        rope=_rope(config),
    )


def read_eos_token_ids(folder: str | Path) -> tuple[int, ...]:
    """From generation_config.json, else config.json; empty when neither says."""
    for name in ("generation_config.json", "config.json"):
        eos = _read(Path(folder) / name).get("eos_token_id")
        if eos is not None:
            return tuple(eos) if isinstance(eos, list) else (eos,)
    return ()


def read_vocab_size(folder: str | Path) -> int:
    """0 when the folder is not on this machine (a hub id)."""
    return int(_read(Path(folder) / "config.json").get("vocab_size", 0))


def _context_tokens(config: dict[str, Any], architecture: str) -> int:
    limit = config.get("max_position_embeddings", 2048)
    # Mistral's window is always in use, Qwen's only when asked for.
    slides = config.get("use_sliding_window", architecture == "MistralForCausalLM")
    window = config.get("sliding_window") if slides else None
    return min(limit, window or limit)


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """transformers 5 keeps all of it in rope_parameters, older ones in two places."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    theta = rope.get("rope_theta") or config.get("rope_theta") or 10000.0
    original = rope.get("original_max_position_embeddings") or config.get("max_position_embeddings")
    return {
        **rope,
        "rope_type": kind,
        "rope_theta": theta,
        "original_max_position_embeddings": original,
    }


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}
