"""Tensors of a model folder by name, and the matrix products they become."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from apps.common.errors import NotFoundError

_fused = torch.ops.mkldnn._linear_pointwise.default
_fused_binary = torch.ops.mkldnn._linear_pointwise.binary


class Weights:
    """Tensors by name, read when taken."""

    def __init__(self, folder: Path, device: str, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.files = dict(_tensor_files(folder))

    def has(self, name: str) -> bool:
        return name in self.files

    def take(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        with safe_open(self.files[name], framework="pt", device=self.device) as file:
            return file.get_tensor(name).to(dtype or self.dtype)

    def linear(self, *names: str) -> "Linear":
        """The matrices of these names, one below the other."""
        weight = torch.cat([self.take(f"{name}.weight") for name in names])
        biases = [f"{name}.bias" for name in names]
        has_bias = self.has(biases[0])
        return Linear(weight, torch.cat([self.take(b) for b in biases]) if has_bias else None)


class Linear:
    """y = x W^T + b, and what comes after it in the same call.

    On a CPU through oneDNN with packed weights: its order of summation does not depend on the
    number of rows, MKL's does.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.is_packed = weight.device.type == "cpu" and _can_pack(weight.dtype)
        self.is_fused = self.is_packed and weight.dtype == torch.float32
        self.dtype, self.bias = weight.dtype, bias
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self.is_packed else weight

    def __call__(self, x: Tensor) -> Tensor:
        """In x's dtype."""
        if self.is_fused:
            return _fused(x, self.weight, self.bias, "none", [], "")
        x_cast = x.to(self.dtype)
        if self.is_packed:
            return _fused(x_cast, self.weight, self.bias, "none", [], "").to(x.dtype)
        return F.linear(x_cast, self.weight, self.bias).to(x.dtype)

    def silu(self, x: Tensor) -> Tensor:
        if self.is_fused:
            return _fused(x, self.weight, self.bias, "swish", [], "")
        return F.silu(self(x))

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        if self.is_fused:
            return _fused_binary(x, other, self.weight, self.bias, "mul")
        return self(x) * other

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        if self.is_fused:
            return _fused_binary(x, other, self.weight, self.bias, "add")
        return self(x) + other


def _can_pack(dtype: torch.dtype) -> bool:
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _tensor_files(folder: Path) -> Iterator[tuple[str, Path]]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        for name, file in json.loads(index.read_text())["weight_map"].items():
            yield name, folder / file
        return
    file = folder / "model.safetensors"
    if not file.exists():
        raise NotFoundError(
            f"{folder} has no model.safetensors; save the model with "
            "save_pretrained(safe_serialization=True)"
        )
    with safe_open(file, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 (a file handle, not a dict)
            yield name, file
