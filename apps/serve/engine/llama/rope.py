"""Rotary position embedding (https://arxiv.org/abs/2104.09864) and its stretched forms."""

import math

import torch
from torch import Tensor

from apps.common.errors import ConfigError
from apps.serve.engine.llama.model_folder import Shape


def rotation(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32 [context_tokens, head_dim / 2]."""
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.int64).float() / shape.head_dim
    frequencies = _stretched(1.0 / shape.rope["rope_theta"] ** exponents, shape)
    angles = torch.outer(torch.arange(shape.context_tokens).float(), frequencies)
    return angles.cos(), angles.sin()


def _stretched(frequencies: Tensor, shape: Shape) -> Tensor:
    rope, kind = shape.rope, shape.rope["rope_type"]
    if kind == "default":
        return frequencies
    if kind == "linear":
        return frequencies / rope["factor"]
    if kind == "llama3":
        return _llama3(frequencies, rope)
    raise ConfigError(
        f"rope scaling {kind!r} is not supported by the torch engine; it knows default, linear and "
        "llama3: serve this model with engine: vllm"
    )


def _llama3(frequencies: Tensor, rope: dict) -> Tensor:
    """Llama 3.1's: short waves as they are, long ones stretched, a ramp between the two."""
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    trained = rope["original_max_position_embeddings"]
    waves = trained * frequencies / (2 * math.pi)  # turns within the trained context
    ramp = ((waves - low) / (high - low)).clamp(0, 1)
    return (1 - ramp) * frequencies / rope["factor"] + ramp * frequencies
