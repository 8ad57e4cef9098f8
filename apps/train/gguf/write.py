"""A model folder as one GGUF file, for llama.cpp, Ollama and whatever else is built on them.

    write_gguf(folder, "model-q8_0.gguf", "q8_0")

The inverse of what `base --from-gguf` reads. A file that would say another model or tokenizer than
the folder is refused. Tensors are written one at a time.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoConfig, PretrainedConfig

from apps.common.errors import InputError
from apps.common.files.model_settings import read_settings, weight_files
from apps.train.gguf.metadata import ROPE_FACTORS, llama3_factors
from apps.train.gguf.tensors import file_name, pairs_from_halves
from apps.train.gguf.write_tokenizer import write_tokenizer

Kind = gguf.GGMLQuantizationType
KINDS = {"f32": Kind.F32, "f16": Kind.F16, "bf16": Kind.BF16, "q8_0": Kind.Q8_0}
_FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""By model type; other families compute something that the file here could not say"""


def check_can_be_written(folder: str) -> None:
    """Raises InputError where GGUF, as it is written here, cannot say what the model of a folder
    computes or how its tokenizer splits text. The weights need not be there yet."""
    config = AutoConfig.from_pretrained(folder)
    check_computes_alike(config)
    nowhere = gguf.GGUFWriter(None, ARCHITECTURES[config.model_type])
    write_tokenizer(nowhere, folder, config.vocab_size)


def check_computes_alike(config: PretrainedConfig) -> None:
    """Raises InputError for a model that llama.cpp would compute otherwise."""
    if config.model_type not in ARCHITECTURES:
        raise InputError(
            f"--gguf knows no {config.model_type} models; expected one of "
            f"{', '.join(ARCHITECTURES)}. Leave it out and convert the folder with llama.cpp."
        )
    kind = config.rope_parameters["rope_type"]
    if kind not in ("default", "linear", "llama3"):
        raise InputError(
            f"--gguf cannot write positions scaled by {kind!r}; expected default, linear or llama3."
        )
    computed = {
        "hidden_act": (config.hidden_act, ("silu", "swish")),
        "partial_rotary_factor": (_rotary_share(config), (1.0,)),
    }
    if config.model_type not in _HAS_BIASES:
        computed["attention_bias"] = (getattr(config, "attention_bias", False), (False,))
    for key, (value, known) in computed.items():
        if value not in known:
            raise InputError(
                f"--gguf cannot write a {config.model_type} model with {key} {value!r}: llama.cpp "
                f"computes it with {known[0]!r}. Leave --gguf out and serve the folder itself."
            )


_HAS_BIASES = ("llama", "qwen2")
"""model types whose biases of the attention llama.cpp reads: a choice in llama, always in qwen2"""


def _rotary_share(config: PretrainedConfig) -> float:
    """The share of a head that is rotated; transformers keeps it in one of two places."""
    inner = config.rope_parameters.get("partial_rotary_factor")
    return float(inner or getattr(config, "partial_rotary_factor", None) or 1.0)


def write_gguf(folder: str, path: str, kind: str, title: str = "") -> None:
    """`kind`: the type of the matrices, a key of KINDS; vectors stay fp32.

    `title` is what programs show of the model; without one it is the folder's.
    """
    config = AutoConfig.from_pretrained(folder)
    check_computes_alike(config)
    writer = gguf.GGUFWriter(path, ARCHITECTURES[config.model_type])
    writer.add_name(title or os.path.basename(os.path.abspath(folder)))
    _write_settings(writer, folder, config, kind)
    write_tokenizer(writer, folder, config.vocab_size)
    shapes = {name: tuple(weight.shape) for name, weight in _weights(folder, config)}
    for name, shape in shapes.items():
        stored = _kind_of(shape, KINDS[kind])
        sizes = gguf.quant_shape_to_byte_shape(shape, stored)
        writer.add_tensor_info(name, sizes, np.dtype(np.uint8), math.prod(sizes), stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, weight in _weights(folder, config):
        data = gguf.quantize(weight.float().numpy(), _kind_of(shapes[name], KINDS[kind]))
        writer.write_tensor_data(np.ascontiguousarray(data))
    writer.close()


def _kind_of(shape: tuple[int, ...], wanted: Kind) -> Kind:
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    if len(shape) == 1:
        return Kind.F32
    return wanted if shape[-1] % block == 0 else Kind.F16


def _write_settings(
    writer: gguf.GGUFWriter, folder: str, config: PretrainedConfig, kind: str
) -> None:
    settings = read_settings(folder)
    sizes = settings.sizes()
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(settings.context_without_window)
    writer.add_embedding_length(sizes.hidden_size)
    writer.add_block_count(sizes.num_layers)
    writer.add_feed_forward_length(sizes.intermediate_size)
    writer.add_head_count(sizes.num_heads)
    writer.add_head_count_kv(sizes.num_kv_heads)
    writer.add_key_length(sizes.head_dim)
    writer.add_value_length(sizes.head_dim)
    writer.add_rope_dimension_count(sizes.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(sizes.vocab_size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if config.rope_parameters["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])


def _weights(folder: str, config: PretrainedConfig) -> Iterator[tuple[str, torch.Tensor]]:
    """Names of the file and weights, in the order in which llama.cpp rotates them."""
    if config.rope_parameters["rope_type"] == "llama3":
        yield ROPE_FACTORS, llama3_factors(config)
    is_paired = ARCHITECTURES[config.model_type] == "llama"
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, file in sorted(weight_files(folder).items()):
        with safe_open(Path(folder, file), "pt") as handle:
            weight = handle.get_tensor(name)
        projection = name.split(".")[-2]
        if is_paired and projection in heads:
            weight = pairs_from_halves(weight, heads[projection])
        yield file_name(name), weight
