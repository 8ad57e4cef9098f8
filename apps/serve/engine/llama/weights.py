"""Tensors of a model folder by name, and as the layers of a LLaMA."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from apps.common.errors import CorruptError, NotFoundError
from apps.common.files.model_settings import stored_tensors, weight_files
from apps.serve.engine.llama.model_folder import read_shape


class Weights:
    """Tensors by name, read when taken."""

    def __init__(self, folder: Path, device: str, dtype: torch.dtype) -> None:
        self.folder, self.device, self.dtype = folder, device, dtype
        self.files = {name: folder / file for name, file in weight_files(folder).items()}
        if not self.files:
            raise NotFoundError(
                f"{folder} has no model.safetensors; save the model with "
                "save_pretrained(safe_serialization=True)"
            )

    def has(self, name: str) -> bool:
        return name in self.files

    def take(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        if name not in self.files:
            raise CorruptError(
                f"{self.folder} lacks {name}, which its config.json promises; download the model "
                "again"
            )
        with safe_open(self.files[name], framework="pt", device=self.device) as file:
            # A copy, because a file may change that is mapped.
            return file.get_tensor(name).to(dtype or self.dtype, copy=True)

    def linear(self, *names: str, bias_dtype: torch.dtype) -> "Linear":
        """The matrices of these names, one below the other."""
        weight = torch.cat([self.take(f"{name}.weight") for name in names])
        biases = [f"{name}.bias" for name in names]
        has_bias = self.has(biases[0])
        if not has_bias:
            return Linear(weight)
        return Linear(weight, torch.cat([self.take(bias, bias_dtype) for bias in biases]))


def is_stored_as_bfloat16(folder: str | Path) -> bool:
    """Whether bfloat16 holds the matrices of a model folder to the bit."""
    files = {Path(folder) / file for file in weight_files(folder).values()}
    tensors = [tensor for file in files for tensor in stored_tensors(file).values()]
    return {kind for kind, shape in tensors if len(shape) > 1} == {"BF16"}


class Linear:
    """y = x W^T + b"""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Layer:
    """One layer's matrices and norms."""

    def __init__(self, weights: Weights, index: int, vector_dtype: torch.dtype) -> None:
        at = f"model.layers.{index}"

        def linear(*names: str) -> Linear:
            return weights.linear(*(f"{at}.{name}" for name in names), bias_dtype=vector_dtype)

        def norm(name: str) -> Tensor | None:
            name = f"{at}.{name}.weight"
            return weights.take(name, vector_dtype) if weights.has(name) else None

        self.attention_norm = weights.take(f"{at}.input_layernorm.weight", vector_dtype)
        self.qkv = linear(*(f"self_attn.{p}_proj" for p in "qkv"))
        self.q_norm, self.k_norm = norm("self_attn.q_norm"), norm("self_attn.k_norm")
        self.out = linear("self_attn.o_proj")
        self.ffn_norm = weights.take(f"{at}.post_attention_layernorm.weight", vector_dtype)
        self.gate, self.up = linear("mlp.gate_proj"), linear("mlp.up_proj")
        self.down = linear("mlp.down_proj")


class Network:
    """All of a model folder. `vector_dtype` is that of the norms' weights and of biases."""

    def __init__(
        self, folder: str | Path, device: str, dtype: torch.dtype, vector_dtype: torch.dtype
    ) -> None:
        self.shape = shape = read_shape(folder)
        weights = Weights(Path(folder), device, dtype)
        self.embedding = weights.take("model.embed_tokens.weight")
        self.layers = [Layer(weights, i, vector_dtype) for i in range(shape.num_layers)]
        self.norm = weights.take("model.norm.weight", vector_dtype)
        self.head = (
            Linear(self.embedding)
            if shape.is_tied
            else weights.linear("lm_head", bias_dtype=vector_dtype)
        )
