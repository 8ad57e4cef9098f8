"""A GGUF file's tensors under transformers' names, dequantized one at a time.

Legend: H heads, D head size, E hidden size.
"""

import re
from collections.abc import Iterator
from copy import deepcopy

import gguf
import numpy as np
import torch
from transformers import PretrainedConfig

from apps.common.errors import InputError
from apps.train.gguf.metadata import ROPE_FACTORS, GgufFile
from apps.train.model import load

EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
_OUTER = {
    EMBEDDING: "model.embed_tokens.weight",
    OUTPUT: "lm_head.weight",
    "output_norm.weight": "model.norm.weight",
}
_INNER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTER_NAMES = {stored: name for name, stored in _OUTER.items()}
_INNER_NAMES = {stored: name for name, stored in _INNER.items()}


def vocab_size(file: GgufFile) -> int:
    """Rows of the embedding."""
    for tensor in file.reader.tensors:
        if tensor.name == EMBEDDING:
            return int(tensor.shape[1])
    raise InputError(f"{file.path} has no {EMBEDDING}; expected a whole model in one file.")


def is_tied(file: GgufFile) -> bool:
    """Whether the output layer is the embedding."""
    return all(tensor.name != OUTPUT for tensor in file.reader.tensors)


def tensors(file: GgufFile, heads: int, kv_heads: int) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, fp32 weight) of every tensor that transformers' model has."""
    stored = [t for t in file.reader.tensors if t.name != ROPE_FACTORS]  # read with the settings
    names = {t.name: _stored_name(file, t.name) for t in stored}
    for tensor in stored:
        try:
            weight = gguf.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            raise InputError(
                f"{file.path} stores {tensor.name} as {tensor.tensor_type.name}, which the gguf "
                "package does not read; expected one of its other quantizations, such as Q8_0."
            ) from error
        if file.architecture == "llama" and ".attn_q." in tensor.name:
            weight = halves_from_pairs(weight, heads)
        elif file.architecture == "llama" and ".attn_k." in tensor.name:
            weight = halves_from_pairs(weight, kv_heads)
        yield names[tensor.name], torch.from_numpy(np.array(weight, np.float32))


def check_whole(file: GgufFile, config: PretrainedConfig) -> None:
    """Refuse a file that lacks a tensor of its own model, or holds it in another shape."""
    model = load.build_on_meta(deepcopy(config))
    wanted = {name: list(p.shape) for name, p in model.named_parameters()}
    there = {
        _stored_name(file, tensor.name): [int(size) for size in reversed(tensor.shape)]
        for tensor in file.reader.tensors
        if tensor.name != ROPE_FACTORS
    }
    if missing := sorted(wanted.keys() - there.keys()):
        raise InputError(
            f"{file.path} lacks {len(missing)} tensors of its own model, first "
            f"{file_name(missing[0])}; expected a whole model in one file."
        )
    if surplus := sorted(there.keys() - wanted.keys()):
        raise InputError(
            f"{file.path} holds the tensor {file_name(surplus[0])}, for which its own settings "
            "have no place; convert or download the model again."
        )
    for name, shape in wanted.items():
        if there[name] != shape:
            raise InputError(
                f"{file_name(name)} in {file.path} has shape {there[name]}; its own settings say "
                f"{shape}: convert or download the model again."
            )


def halves_from_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection (H D, E) in the order in which transformers rotates them.

    llama.cpp rotates neighbours (0, 1), (2, 3), transformers the halves of a head, so its
    converter had interleaved them. A head of four rows: file a0 b0 a1 b1, here a0 a1 b0 b1.
    """
    rows, *rest = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, *rest)
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def pairs_from_halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The inverse of `halves_from_pairs`: a head a0 a1 b0 b1 becomes a0 b0 a1 b1."""
    halves = weight.unflatten(0, (heads, 2, weight.shape[0] // heads // 2))
    return halves.transpose(1, 2).reshape(weight.shape)


def file_name(name: str) -> str:
    """A tensor's name in a file, the inverse of what is read; transformers' name given."""
    if name in _OUTER_NAMES:
        return _OUTER_NAMES[name]
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if layer is None or layer[2] not in _INNER_NAMES:
        raise InputError(f"GGUF has no name for the tensor {name}; leave --gguf out.")
    return f"blk.{layer[1]}.{_INNER_NAMES[layer[2]]}.{layer[3]}"


def _stored_name(file: GgufFile, name: str) -> str:
    if name in _OUTER:
        return _OUTER[name]
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if layer is not None and layer[2] in _INNER:
        return f"model.layers.{layer[1]}.{_INNER[layer[2]]}.{layer[3]}"
    raise InputError(
        f"{file.path} holds the tensor {name}, which no model of architecture "
        f"{file.architecture!r} here has; expected a plain decoder."
    )
