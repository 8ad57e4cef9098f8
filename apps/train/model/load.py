"""Build a LLaMA-family model without weights, shard it, then read each shard from safetensors.

Every rank builds the model on the meta device and, after sharding, reads only the slices of the
files that it owns: no rank ever holds the whole model, and nothing is sent between ranks.
"""

from collections.abc import Iterator

import torch
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from apps.common.text.tokenizer import load_tokenizer
from apps.train.config import RopeConfig, RunConfig
from apps.train.model import attention
from apps.train.model.long_rope import by_conversation
from apps.train.model.rope import extend
from apps.train.model.shape import check_reach
from apps.train.model.stored import Source, sources
from apps.train.model.supported import UNUSABLE, check_pad, check_supported, unusable


def read_config(
    folder: str, rope: RopeConfig, row_tokens: int, *, resized: bool = False
) -> PretrainedConfig:
    """The base model's config with the length extension, checked against the row length.

    `resized`: with embeddings for every token of the folder's tokenizer.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except UNUSABLE as error:
        raise unusable(folder, error) from error
    check_supported(config, folder)
    if resized:
        num_tokens = 1 + max(load_tokenizer(folder).backend.get_vocab().values())
        config.vocab_size = max(config.vocab_size, num_tokens)
    check_pad(config, folder)
    original = config.max_position_embeddings
    check_reach(folder, original, rope, row_tokens)
    if rope.kind != "none":
        extend(config, folder, rope)
    return config


def build_on_meta(config: PretrainedConfig) -> PreTrainedModel:
    """The model without storage, fp32, whose attention takes packed rows."""
    config.use_cache = False
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, dtype=torch.float32, attn_implementation=attention.NAME,
                trust_remote_code=False,
            )  # fmt: skip
            by_conversation(model)
    except UNUSABLE as error:
        raise unusable(config.name_or_path or f"the {config.model_type} model", error) from error
    model.tie_weights()
    return model


def run_config(run: RunConfig, folder: str, row_tokens: int) -> PretrainedConfig:
    """The config of the model that a run trains, from its base's folder."""
    return read_config(folder, run.rope, row_tokens, resized=run.resize_embeddings)


def base_weights(folder: str, config: PretrainedConfig) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter of the model whole, one at a time, as it was before training."""
    for name, source in base_sources(folder, config).items():
        yield name, source.rows(0, source.shape[0])


def base_sources(folder: str, config: PretrainedConfig) -> dict[str, Source]:
    """Where each parameter lies in the files of the base, to be read when it is wanted."""
    shapes = {name: p.shape for name, p in build_on_meta(config).named_parameters()}
    return sources(folder, config, shapes)


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


def materialize(model: PreTrainedModel, device: torch.device) -> None:
    """Give parameters and buffers storage. Buffers (rotary tables) get their values again."""
    model.to_empty(device=device)
    model.tie_weights()  # to_empty gives each of two names its own storage
    fill_buffers(model, device)


def fill_buffers(model: torch.nn.Module, device: torch.device) -> None:
    """Compute the buffers (rotary tables), which no file holds, on `device`."""
    for module in model.modules():
        if not any(True for _ in module.buffers(recurse=False)):
            continue
        if isinstance(scale := getattr(module, "scalar_embed_scale", None), float):
            module.embed_scale = torch.tensor(scale, device=device)
            continue
        fresh = type(module)(config=module.config)
        for name, value in fresh.named_buffers(recurse=False):
            setattr(module, name, value.to(device))


def load_weights(model: PreTrainedModel, folder: str, names: dict[str, str] | None = None) -> None:
    """Fill the parameters from safetensors files, each rank reading its own slices.

    `names` maps a parameter's name to that in the model without adapters, where they differ.
    """
    base = {
        (names or {}).get(name, name): parameter
        for name, parameter in model.named_parameters()
        if "lora_" not in name
    }
    chosen = sources(folder, model.config, {name: p.shape for name, p in base.items()})
    with torch.no_grad():
        for name, parameter in base.items():
            _read_into(parameter, chosen[name])


def _read_into(parameter: torch.Tensor, source: Source) -> None:
    if not isinstance(parameter, DTensor):
        parameter.copy_(source.rows(0, parameter.shape[0]))
        return
    local = parameter.to_local()
    if local.numel() == 0:
        return
    shape, offset = compute_local_shape_and_global_offset(
        parameter.shape, parameter.device_mesh, parameter.placements
    )
    rows = source.rows(offset[0], offset[0] + shape[0])
    others = zip(offset[1:], shape[1:], strict=True)
    local.copy_(rows[(slice(None), *(slice(o, o + n) for o, n in others))])


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
