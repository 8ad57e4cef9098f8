"""Build a LLaMA-family model without weights, shard it, then read each shard from safetensors.

Every rank builds the model on the meta device and, after sharding, reads only the slices of the
files that it owns: no rank ever holds the whole model, and nothing is sent between ranks.
"""

import os
from collections.abc import Iterator

import torch
from safetensors import safe_open
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from apps.common.errors import CorruptError, InputError, NotFoundError
from apps.common.files.model_folder import model_folder
from apps.common.files.model_settings import CONFIG, weight_files
from apps.train.config import RopeConfig
from apps.train.model import attention
from apps.train.model.shape import FAMILY, check_reach

_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth")


def fetch_base(base: str) -> str:
    """Local folder of a model folder, bucket or hub id; only safetensors weights are accepted."""
    folder = model_folder(base)
    names = set(os.listdir(folder))
    if CONFIG not in names:
        raise NotFoundError(
            f"{base} has no config.json; expected a Hugging Face model folder or a hub id."
        )
    if not any(n.endswith(".safetensors") for n in names):
        pickled = next((n for n in _PICKLES if n in names), None)
        if pickled:
            raise InputError(
                f"{base} holds pickled weights ({pickled}), which can run code when they are read; "
                f"convert them on a machine you trust: {_conversion(base)}"
            )
        raise NotFoundError(
            f"{base} has no *.safetensors file; expected a model's weights. If it has pickled ones "
            f"only, convert them on a machine you trust: {_conversion(base)}"
        )
    return folder


def _conversion(base: str) -> str:
    """A command that writes a model with pickled weights as a safetensors folder."""
    return (
        'python -c "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
        f"[C.from_pretrained('{base}').save_pretrained('NEW') for C in (M, T)]\""
    )


def read_config(folder: str, rope: RopeConfig, row_tokens: int) -> PretrainedConfig:
    """The base model's config, with the length extension, checked against the row length."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"The config.json of {folder} cannot be used ({' '.join(str(error).split())[:160]}); "
            "expected a model of the LLaMA family, without code of its own."
        ) from error
    _check_family(config, folder)
    original = config.max_position_embeddings
    check_reach(folder, original, rope, row_tokens)
    if rope.kind != "none":
        scaled = config.rope_parameters.get("rope_type", "default")
        if scaled != "default":
            raise InputError(
                f"{folder} is already extended (rope_type {scaled}, {original} tokens); "
                "rope.kind would replace that: leave it out, or start from a base that is not."
            )
        config.rope_parameters = {
            **config.rope_parameters,
            "rope_type": rope.kind,
            "factor": rope.factor,
        }
        if rope.kind == "yarn":
            config.rope_parameters["original_max_position_embeddings"] = original
        config.max_position_embeddings = int(original * rope.factor)
    return config


def _check_family(config: PretrainedConfig, folder: str) -> None:
    if config.model_type not in FAMILY:
        raise InputError(
            f"{folder} is a {config.model_type} model; expected one of the LLaMA family: "
            f"{', '.join(FAMILY)}."
        )


def build_on_meta(config: PretrainedConfig) -> PreTrainedModel:
    """The model without storage, fp32, whose attention takes packed rows."""
    config.use_cache = False
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation=attention.NAME, trust_remote_code=False
        )
    model.tie_weights()
    return model


def decoder_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The repeated blocks of a model, in order."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [m for m in model.modules() if type(m).__name__ in names]


def freeze_below(model: PreTrainedModel, top_layers: int) -> None:
    """Leave only the last decoder layers to train."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for layer in decoder_layers(model)[-top_layers:]:
        layer.requires_grad_(True)


def materialize(model: torch.nn.Module, device: torch.device) -> None:
    """Give parameters and buffers storage. Buffers (rotary tables) get their values again."""
    model.to_empty(device=device)
    fill_buffers(model, device)


def fill_buffers(model: torch.nn.Module, device: torch.device) -> None:
    """Compute the buffers (rotary tables), which no file holds, on `device`."""
    for module in model.modules():
        if any(True for _ in module.buffers(recurse=False)) and hasattr(module, "config"):
            fresh = type(module)(config=module.config)
            for name, value in fresh.named_buffers(recurse=False):
                setattr(module, name, value.to(device))


def load_weights(model: PreTrainedModel, folder: str, names: dict[str, str] | None = None) -> None:
    """Fill the parameters from safetensors files, each rank reading its own slices.

    `names` maps a parameter's name to the name in the files where they differ (adapters).
    """
    files = weight_files(folder)
    missing = []
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            stored = (names or {}).get(name, name)
            if stored not in files:
                missing.append(name)
                continue
            _read_into(parameter, os.path.join(folder, files[stored]), stored)
    refuse_missing(folder, [name for name in missing if "lora_" not in name])


def refuse_missing(folder: str, names: list[str]) -> None:
    """A model must not train from weights that nothing filled."""
    if names:
        raise CorruptError(
            f"{folder} lacks {len(names)} weights of its own config, first {names[0]}; download "
            "the model again."
        )


def stored_weights(folder: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a model folder, one at a time, as stored."""
    for name, file in weight_files(folder).items():
        with safe_open(os.path.join(folder, file), framework="pt") as tensors:
            yield name, tensors.get_tensor(name)


def _read_into(parameter: torch.Tensor, path: str, name: str) -> None:
    with safe_open(path, framework="pt") as tensors:
        stored = tensors.get_slice(name)
        if list(stored.get_shape()) != list(parameter.shape):
            raise CorruptError(
                f"{name} in {path} has shape {list(stored.get_shape())}; the config says "
                f"{list(parameter.shape)}. Download the model again."
            )
        if not isinstance(parameter, DTensor):
            parameter.copy_(stored[...])
            return
        local = parameter.to_local()
        if local.numel() == 0:
            return
        shape, offset = compute_local_shape_and_global_offset(
            parameter.shape, parameter.device_mesh, parameter.placements
        )
        local.copy_(stored[tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))])


def full_weights(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Whole parameters one at a time (a collective over all ranks), tied ones once."""
    for name, parameter in model.named_parameters():
        yield (
            name,
            parameter.full_tensor() if isinstance(parameter, DTensor) else parameter.detach(),
        )


@torch.no_grad()
def fill_randomly(model: torch.nn.Module, seed: int) -> None:
    """Weights of about the usual scale, for measuring a shape without its files."""
    generator: dict[torch.device, torch.Generator] = {}
    for parameter in model.parameters():
        part = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        if part.device not in generator:
            generator[part.device] = torch.Generator(part.device).manual_seed(seed)
        if parameter.dim() == 1:
            part.fill_(1.0)
        else:
            part.normal_(std=0.02, generator=generator[part.device])
