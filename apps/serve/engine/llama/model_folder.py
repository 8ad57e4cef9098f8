"""The numbers of a LLaMA-family folder that the engines compute with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from apps.common.errors import ConfigError, NotFoundError
from apps.common.files.model_settings import read_settings

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
    """rope_type, rope_theta and what that type needs."""

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of all layers, in float32."""
        return 2 * 4 * self.num_layers * self.num_kv_heads * self.head_dim


def read_shape(folder: str | Path) -> Shape:
    """Raises NotFoundError without a config.json, ConfigError for a model of another kind."""
    settings = read_settings(folder)
    if not settings.config:
        raise NotFoundError(f"{folder} has no config.json; give a Hugging Face model folder")
    architecture = settings.architecture
    activation = settings.config.get("hidden_act", "silu")
    if architecture not in ARCHITECTURES or activation != "silu":
        raise ConfigError(
            f"the torch engine cannot run {architecture} with {activation}; it knows "
            f"{', '.join(ARCHITECTURES)} with silu: serve this model with engine: vllm"
        )
    if quantization := settings.config.get("quantization_config"):
        method = cast(dict[str, object], quantization).get("quant_method", "unknown")
        raise ConfigError(
            f"{folder} is quantized ({method}), and the torch engine computes with whole weights; "
            "serve it with engine: vllm, or export it without --quantize"
        )
    sizes = settings.sizes()
    return Shape(
        num_layers=sizes.num_layers,
        hidden_size=sizes.hidden_size,
        num_heads=sizes.num_heads,
        num_kv_heads=sizes.num_kv_heads,
        head_dim=sizes.head_dim,
        vocab_size=sizes.vocab_size,
        norm_eps=cast(float, settings.config.get("rms_norm_eps", 1e-6)),
        context_tokens=settings.context_without_window,
        is_tied=sizes.is_tied,
        rope=settings.rope,
    )
