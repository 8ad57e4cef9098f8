"""Weights of an export rounded to 8 or 4 bits, in the format of compressed-tensors.

vLLM and transformers load it: https://docs.vllm.ai/projects/llm-compressor names the schemes. Each
weight goes to the nearest step of the scale of its row, or of its group in the row. That needs no
example texts: what is quantized of the activations is so while serving.

    fp8    8-bit floats, activations too: NVIDIA since Ada and Hopper
    w8a8   8-bit integers, activations too: NVIDIA since Turing
    w8a16  8-bit integers in groups, computed in 16 bits
    w4a16  4-bit integers in groups, computed in 16 bits: a quarter of the memory, the least exact
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.config import CompressionFormat
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    QuantizationStatus,
    preset_name_to_scheme,
)
from compressed_tensors.quantization.utils import calculate_qparams
from transformers import PreTrainedModel

from apps.common.errors import InputError

_PRESETS = {"fp8": "FP8_DYNAMIC", "w8a8": "W8A8", "w8a16": "W8A16", "w4a16": "W4A16"}
_FORMATS = {
    "fp8": CompressionFormat.float_quantized,
    "w8a8": CompressionFormat.int_quantized,
    "w8a16": CompressionFormat.pack_quantized,
    "w4a16": CompressionFormat.pack_quantized,
}
_GROUP_SIZES = (128, 64, 32)
"""that vLLM's kernels take (Marlin); the largest is the smallest on disk"""
_HEAD = "lm_head"
_UNTRIED = ("mixtral", "qwen3_moe")
"""stacked experts, whose files hold them one by one"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantization:
    """How the linear maps of a model are stored."""

    scheme: QuantizationScheme
    weights: QuantizationArgs
    """the scheme's"""
    format: CompressionFormat
    names: frozenset[str]
    """of the weights: those of all linear maps but the head"""

    def config(self) -> dict[str, object]:
        """What config.json says of it."""
        return QuantizationConfig(
            config_groups={"group_0": self.scheme},
            format=self.format.value,
            quantization_status=QuantizationStatus.COMPRESSED,
            ignore=[_HEAD],
        ).to_dict()


def plan_quantization(model: PreTrainedModel, kind: str) -> Quantization:
    """Raises InputError for a model that the kind does not fit."""
    if model.config.model_type in _UNTRIED:
        raise InputError(
            f"--quantize has not been proven for {model.config.model_type} models; leave it out."
        )
    widths = {
        f"{name}.weight": module.in_features
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != _HEAD
    }
    scheme = preset_name_to_scheme(_PRESETS[kind], ["Linear"])
    assert scheme.weights is not None  # of every preset here
    if scheme.weights.group_size:
        scheme.weights.group_size = _group_size(widths, kind)
    return Quantization(
        scheme=scheme,
        weights=scheme.weights,
        format=_FORMATS[kind],
        names=frozenset(widths),
    )


def _group_size(widths: dict[str, int], kind: str) -> int:
    for size in _GROUP_SIZES:
        if all(width % size == 0 for width in widths.values()):
            return size
    name, width = next((n, w) for n, w in widths.items() if w % _GROUP_SIZES[-1])
    raise InputError(
        f"--quantize {kind} scales groups of {_GROUP_SIZES[-1]} weights or more, and {name} has "
        f"rows of {width}; take fp8 or w8a8."
    )


def quantized(
    pieces: Iterator[tuple[str, torch.Tensor]], plan: Quantization, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """Named weights as they are stored: a quantized one becomes several. Scales are `dtype`."""
    compressor = BaseCompressor.get_value_from_registry(plan.format.value)
    for name, weight in pieces:
        if name not in plan.names:
            yield name, weight
            continue
        scales = _scales(weight, plan.weights).to(dtype)
        whole: dict[str, torch.Tensor | None] = {"weight": weight.float(), "weight_scale": scales}
        layer = name.removesuffix("weight")
        for part, value in compressor.compress(whole, plan.scheme).items():
            if value is not None:
                yield layer + part, value


def _scales(weight: torch.Tensor, args: QuantizationArgs) -> torch.Tensor:
    """(rows, groups), with one group a row where the scheme has none."""
    groups = weight.float().unflatten(1, (-1, args.group_size or weight.shape[1]))
    scales, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), args)
    return scales
