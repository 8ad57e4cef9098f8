"""Refuse a config.json that no model follows from, or another one than would be trained."""

from collections.abc import Iterator
from typing import cast

from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from apps.common.errors import InputError
from apps.train.model.shape import FAMILY
from apps.train.model.stored import heads_differ, num_experts

UNUSABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
"""what transformers raises for a config that it cannot read or build a model of"""
_PLAIN = {
    "attention_dropout": 0.0,
    "router_jitter_noise": 0.0,
    "output_router_logits": False,
    "use_bidirectional_attention": False,
    "is_causal": True,
}
"""settings of config.json that training honours at this value only"""
_AT_LEAST_ONE = (
    "max_position_embeddings",
    "num_attention_heads",
    "num_key_value_heads",
    "num_experts_per_tok",
    "query_pre_attn_scalar",
)
_WINDOW = "sliding_attention"
_LAYERS = ("full_attention", _WINDOW)
"""kinds of decoder layers, by what their attention reaches"""


def unusable(folder: str, error: Exception) -> InputError:
    """The sentence for one of these errors."""
    told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return InputError(
        f"The config.json of {folder} cannot be used ({told}); expected a model of the LLaMA "
        "family, without code of its own."
    )


def check_supported(config: PretrainedConfig, folder: str) -> None:
    """Refuse what would be trained in another way than the config says; honour the rest."""
    if config.model_type not in FAMILY:
        raise InputError(
            f"{folder} is a {config.model_type} model; expected one of the LLaMA family: "
            f"{', '.join(FAMILY)}."
        )
    for name, plain in _PLAIN.items():
        stated = getattr(config, name, plain)
        if stated not in (plain, None):
            raise InputError(
                f"{folder} has {name} {stated} in its config.json, which is not computed here; "
                f"expected {plain}: set it so to train without it."
            )
    for wrong in _contradictions(config):
        raise InputError(f"{folder} has {wrong} in its config.json; download the model again.")
    _dequantize(config, folder)
    if config.tie_word_embeddings and heads_differ(folder):
        config.tie_word_embeddings = False  # as transformers does: the files know better


def _contradictions(config: PretrainedConfig) -> Iterator[str]:
    """What no model can be built of, or none whose layers fit together."""
    for name in _AT_LEAST_ONE:
        if (value := getattr(config, name, None)) is not None and not value >= 1:
            yield f"{name} {value} (expected at least 1)"
    yield from _unusable_windows(config)
    for name in ("hidden_act", "hidden_activation"):
        if (act := getattr(config, name, None)) is not None and act not in ACT2FN:
            yield f"{name} {act!r}, which transformers does not know"
    for kind in _rope_types(config.rope_parameters):
        if kind != "default" and kind not in ROPE_INIT_FUNCTIONS:
            yield f"rope_type {kind!r} (expected default, {', '.join(ROPE_INIT_FUNCTIONS)})"
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % kv_heads:
        yield f"num_attention_heads {heads}, which num_key_value_heads {kv_heads} does not divide"
    experts = num_experts(config)
    visited = getattr(config, "num_experts_per_tok", 0)
    if experts and visited > experts:
        yield f"num_experts_per_tok {visited} of {experts} experts"


def _unusable_windows(config: PretrainedConfig) -> Iterator[str]:
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    if window is not None and not (isinstance(window, int) and window >= 1):
        yield f"sliding_window {window!r} (expected at least 1 token, or null)"
    for kind in kinds or ():
        if kind not in _LAYERS:
            yield f"layer_types {kind!r} (expected {' or '.join(_LAYERS)})"
        if kind == _WINDOW and window is None:
            yield f"layer_types {kind!r} and no sliding_window"


def check_pad(config: PretrainedConfig, folder: str) -> None:
    """Refuse a padding token that has no embedding; a tokenizer that was added to often has one."""
    pad, size = config.pad_token_id, config.vocab_size
    if pad is not None and not -size <= pad < size:
        raise InputError(
            f"{folder} has pad_token_id {pad} in its config.json and {size} embeddings; give "
            "--resize-embeddings if the tokenizer has that token, or set it to another id there."
        )


def _rope_types(parameters: dict[str, object]) -> Iterator[object]:
    """Of all layers, or of each kind of layer."""
    of_layers = [value for value in parameters.values() if isinstance(value, dict)]
    for each in of_layers or [parameters]:
        yield cast(dict[str, object], each).get("rope_type", "default")


def _dequantize(config: PretrainedConfig, folder: str) -> None:
    """Block-wise fp8 weights are read as the numbers they stand for, others are refused."""
    quantization = getattr(config, "quantization_config", None)
    if quantization is None:
        return
    method = quantization.get("quant_method", "unknown")
    is_block_wise = bool(quantization.get("weight_block_size"))
    if method != "fp8" or not is_block_wise or quantization.get("scale_fmt", "float") != "float":
        raise InputError(
            f"{folder} is quantized ({method}), and training needs whole weights; download the "
            "model that it was made from: its card names it as base_model."
        )
    del config.quantization_config  # pyright: ignore[reportAttributeAccessIssue]
