"""Stretch the positions of a model to longer rows, where its family keeps its rotary settings."""

from typing import cast

from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig

from apps.common.errors import InputError
from apps.train.config import RopeConfig

_WHOLE = "full_attention"
"""layers whose attention reaches over all positions; others see a window that stays as it is"""


def extend(config: PretrainedConfig, folder: str, rope: RopeConfig) -> None:
    """Write `rope` into a config read from `folder`; raises InputError where it has no place.

    One setting holds for all layers, or (Gemma 3) one for each kind of layer. There the layers that
    see everything are stretched, as Gemma 3 itself was from 32,768 to 131,072 positions.
    """
    original = config.max_position_embeddings
    stated = cast(dict[str, object], config.rope_parameters)
    is_by_layer = any(isinstance(value, dict) for value in stated.values())
    if is_by_layer and _WHOLE not in config.layer_types:
        raise InputError(
            f"{folder} has no {_WHOLE} layer, which rope.kind would stretch; leave it out."
        )
    parameters = cast(dict[str, object], stated[_WHOLE]) if is_by_layer else stated
    scaled = parameters.get("rope_type", "default")
    if scaled != "default":
        raise InputError(
            f"{folder} is already extended (rope_type {scaled}, {original} tokens); "
            "rope.kind would replace that: leave it out, or start from a base that is not."
        )
    stretched = {**parameters, "rope_type": rope.kind, "factor": rope.factor}
    if rope.kind == "yarn":
        stretched["original_max_position_embeddings"] = original
    config.rope_parameters = {**stated, _WHOLE: stretched} if is_by_layer else stretched
    config.max_position_embeddings = int(original * rope.factor)
    _check_is_kept(config, folder, rope)


def _check_is_kept(config: PretrainedConfig, folder: str, rope: RopeConfig) -> None:
    """Whether the exported config.json says the same: Phi-3's, for one, reads yarn as longrope."""
    try:
        is_kept = type(config).from_dict(config.to_dict()).rope_parameters == config.rope_parameters
    except (StrictDataclassError, KeyError, ValueError):
        is_kept = False
    if not is_kept:
        raise InputError(
            f"{folder} is a {config.model_type} model, whose config cannot say rope.kind "
            f"{rope.kind}; leave it out, and pack with --max-length "
            f"{int(config.max_position_embeddings / rope.factor)} or less."
        )
