"""What a GGUF file says about its model, as the `config.json` that transformers reads.

Key names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from apps.common.errors import InputError

_CONFIGS: dict[str, type[PretrainedConfig]] = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
}
"""By GGUF architecture; Mistral's models are written as `llama` too"""
ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class GgufFile:
    """An open GGUF file of the LLaMA family; tensors are mapped, not read."""

    path: str
    reader: gguf.GGUFReader
    architecture: str

    def value(self, key: str, default: Any = None) -> Any:
        """A field's value; `{}` in the key stands for the architecture."""
        field = self.reader.get_field(key.replace("{}", self.architecture))
        return default if field is None else field.contents()

    def required(self, key: str) -> Any:
        value = self.value(key)
        if value is None:
            name = key.replace("{}", self.architecture)
            raise InputError(f"{self.path} lacks {name}; convert or download the model again.")
        return value


def open_gguf(path: str) -> GgufFile:
    """Raises InputError when the file is no GGUF, or not of a model that can be converted."""
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, OverflowError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is no whole GGUF file ({' '.join(str(error).split())[:120]}); expected one "
            "that llama.cpp loads."
        ) from error
    field = reader.get_field("general.architecture")
    architecture = "" if field is None else str(field.contents())
    if architecture not in _CONFIGS:
        raise InputError(
            f"{path} holds a model of architecture {architecture or 'unknown'!r}; expected one of "
            f"{', '.join(_CONFIGS)} (Mistral counts as llama)."
        )
    file = GgufFile(path, reader, architecture)
    if (parts := file.value("split.count", 1)) > 1:
        raise InputError(
            f"{path} is one of {parts} parts of a model; join them first: "
            "`llama-gguf-split --merge FIRST_PART WHOLE`."
        )
    if file.value("{}.expert_count", 0):
        raise InputError(f"{path} is a mixture of experts; expected a dense model.")
    return file


def config_of(file: GgufFile, *, is_tied: bool, vocab_size: int) -> PretrainedConfig:
    """The model's shape; token ids are the tokenizer's business."""
    heads = _one(file, "{}.attention.head_count")
    hidden = int(file.required("{}.embedding_length"))
    settings = {
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "intermediate_size": _one(file, "{}.feed_forward_length"),
        "num_hidden_layers": int(file.required("{}.block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": _one(file, "{}.attention.head_count_kv", heads),
        "head_dim": int(file.value("{}.attention.key_length", hidden // heads)),
        "max_position_embeddings": int(file.required("{}.context_length")),
        "rms_norm_eps": _short(file.required("{}.attention.layer_norm_rms_epsilon")),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": _short(file.value("{}.rope.freq_base", 10_000.0)),
        },
        "tie_word_embeddings": is_tied,
        "dtype": "bfloat16",
    }
    if file.architecture == "llama":
        names = {tensor.name for tensor in file.reader.tensors}
        settings["attention_bias"] = "blk.0.attn_q.bias" in names
        settings["mlp_bias"] = "blk.0.ffn_up.bias" in names
    _check_is_plain(file, settings["head_dim"])
    config = _CONFIGS[file.architecture](**settings)
    config.rope_parameters = _rope(file, config)
    config.architectures = [f"{type(config).__name__.removesuffix('Config')}ForCausalLM"]
    return config


def _one(file: GgufFile, key: str, default: int | None = None) -> int:
    """A number that a file may give layer by layer."""
    value = file.value(key, default) if default is not None else file.required(key)
    if isinstance(value, list):
        if len(set(value)) != 1:
            name = key.replace("{}", file.architecture)
            raise InputError(
                f"{file.path} gives each layer its own {name}; expected layers of one shape."
            )
        return int(value[0])
    return int(value)


def _short(value: float) -> float:
    """The decimal that was meant: GGUF keeps fp32, 1e-5 comes back as 9.999999747378752e-06."""
    return float(np.format_float_scientific(np.float32(value)))


def _check_is_plain(file: GgufFile, head_dim: int) -> None:
    """Raises InputError for settings of llama.cpp's that these families here have no words for."""
    kept = {
        "{}.rope.dimension_count": head_dim,
        "{}.attention.value_length": head_dim,
        "{}.rope.scaling.attn_factor": 1.0,
        "{}.attention.causal": True,
    }
    for key, expected in kept.items():
        if (value := file.value(key, expected)) != expected:
            name = key.replace("{}", file.architecture)
            raise InputError(f"{file.path} says {name} {value}; expected {expected}, or none.")


def _rope(file: GgufFile, config: PretrainedConfig) -> dict[str, Any]:
    """Rotary settings; a scaling that transformers would compute otherwise is refused.

    As llama.cpp reads them (llama-model.cpp, load_hparams): the type is linear where none is said,
    the factor has an older name, and 0 means none.
    """
    plain = dict(config.rope_parameters)
    kind = file.value("{}.rope.scaling.type", "linear")
    if kind not in ("none", "linear"):
        raise InputError(
            f"{file.path} scales its positions by {kind!r}; expected none or linear scaling."
        )
    older = file.value("{}.rope.scale_linear", 0.0)
    factor = _short(file.value("{}.rope.scaling.factor", older)) if kind == "linear" else 0.0
    stored = [t for t in file.reader.tensors if t.name == ROPE_FACTORS]
    if factor in (0.0, 1.0):
        return _llama3_rope(file, plain, np.array(stored[0].data), config) if stored else plain
    if stored:
        raise InputError(
            f"{file.path} scales its positions by {factor:g} and by {ROPE_FACTORS}; expected one."
        )
    return {**plain, "rope_type": "linear", "factor": factor}


def _llama3_rope(
    file: GgufFile, plain: dict[str, Any], factors: np.ndarray, config: PretrainedConfig
) -> dict[str, Any]:
    """Llama 3.1's scaling: GGUF keeps what it makes of each frequency, transformers its settings.

    The slowest frequency is divided by the whole factor; that the settings give back all stored
    factors is checked.
    """
    scaled = {
        **plain,
        "rope_type": "llama3",
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config.rope_parameters = scaled
    if not np.allclose(llama3_factors(config).numpy(), factors, rtol=1e-3):
        raise InputError(
            f"{file.path} scales its positions in a way that is not Llama 3.1's; expected "
            f"{ROPE_FACTORS} as llama.cpp writes it, or none."
        )
    return scaled


def llama3_factors(config: PretrainedConfig) -> torch.Tensor:
    """What Llama 3.1's settings divide each frequency by."""
    head_dim = int(config.head_dim)
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    return 1.0 / config.rope_parameters["rope_theta"] ** pairs / scaled
