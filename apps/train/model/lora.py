"""Low-rank adapters through peft, injected into the model in place.

The base weights are frozen; only adapters are trained, checkpointed and (with `--adapter-only`)
exported. An adapted layer keeps its weight under `<layer>.base_layer.weight`, which is where
`stored_names` comes from.
"""

import hashlib
import math
import os
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from apps.common.errors import ConfigError
from apps.train.config import LoraConfig, RunConfig
from apps.train.model.load import decoder_layers

if TYPE_CHECKING:
    from peft import LoraConfig as PeftLoraConfig

NAME = "default"
_LAYER = re.compile(r"\.layers\.(\d+)\.")


def targets(model: PreTrainedModel, config: LoraConfig) -> list[str]:
    """Names of the linear layers that get an adapter; ConfigError for one that no layer has."""
    names = {
        name.rpartition(".")[2]
        for layer in decoder_layers(model)
        for name, module in layer.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    unknown = sorted(set(config.targets) - names)
    if unknown:
        raise ConfigError(
            f"lora.targets {', '.join(unknown)} name no linear layer of this model; expected some "
            f"of {', '.join(sorted(names))}, or leave lora.targets out for all."
        )
    return sorted(config.targets or names)


def peft_config(
    config: LoraConfig, names: list[str], layers: list[int] | None = None
) -> "PeftLoraConfig":
    """The same settings in peft's words, as they are saved beside an exported adapter.

    `names`: the linear layers that get adapters, in the decoder layers `layers`; None: in all.
    """
    from peft import LoraConfig as PeftLoraConfig  # imports accelerate, which few runs need

    return PeftLoraConfig(
        r=config.rank,
        lora_alpha=cast(int, config.alpha),  # peft divides it by the rank, whatever its type
        lora_dropout=config.dropout,
        target_modules=names,
        layers_to_transform=layers,
        task_type="CAUSAL_LM",
    )


def inject(model: PreTrainedModel, config: LoraConfig, top_layers: int = 0) -> None:
    """Freeze the model and add adapters to the targets of its last `top_layers`; 0: of all."""
    from peft import inject_adapter_in_model

    layers = adapted_layers(model, top_layers)
    chosen = peft_config(config, targets(model, config), layers)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    inject_adapter_in_model(chosen, model, adapter_name=NAME)


def adapted_layers(model: torch.nn.Module, top_layers: int) -> list[int] | None:
    """Numbers of the last decoder layers; None for all."""
    num_layers = len(decoder_layers(model))
    return list(range(max(num_layers - top_layers, 0), num_layers)) if top_layers else None


def num_parameters(model: torch.nn.Module) -> int:
    """Parameters of the adapters, over all ranks; 0 where there are none."""
    return sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)


def stored_names(model: torch.nn.Module) -> dict[str, str]:
    """Names in the base model's files of the parameters that adapters renamed."""
    return {
        name: name.replace(".base_layer.", ".")
        for name, _ in model.named_parameters()
        if ".base_layer." in name
    }


@torch.no_grad()
def fill(model: torch.nn.Module, seed: int) -> None:
    """Start values of the adapters (A uniform, B zero), the same on any number of ranks."""
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            continue
        value = torch.zeros(parameter.shape)
        if "lora_A" in name:
            digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
            torch.nn.init.kaiming_uniform_(value, a=math.sqrt(5), generator=generator)
        if isinstance(parameter, DTensor):
            value = value.to(parameter.device)
            value = distribute_tensor(value, parameter.device_mesh, parameter.placements)
        parameter.copy_(value)


def scaled(trained: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """The adapters with `share` of their effect: B A is linear in B."""
    if share == 1:
        return trained
    return {name: w * share if ".lora_B." in name else w for name, w in trained.items()}


def merged(
    base: Iterable[tuple[str, torch.Tensor]], trained: dict[str, torch.Tensor], config: LoraConfig
) -> Iterator[tuple[str, torch.Tensor]]:
    """The base model's weights with the adapters added: W + B A alpha / rank, fp32."""
    adapters = {n.split(".lora_A.")[0]: n for n in trained if ".lora_A." in n}
    for name, weight in base:
        layer = name.removesuffix(".weight")
        if layer in adapters:
            down = trained[adapters[layer]]
            up = trained[adapters[layer].replace(".lora_A.", ".lora_B.")]
            weight = weight.float() + up @ down * (config.alpha / config.rank)
        yield name, weight


def write(
    folder: str,
    model: PreTrainedModel,
    trained: dict[str, torch.Tensor],
    run: RunConfig,
    dtype: torch.dtype,
) -> int:
    """The adapter alone, in peft's layout; returns the number of tensors."""
    named = {
        f"base_model.model.{name.replace(f'.{NAME}', '')}": value.to(dtype)
        for name, value in trained.items()
    }
    save_file(named, os.path.join(folder, "adapter_model.safetensors"), metadata={"format": "pt"})
    numbers = {int(number) for name in trained for number in _LAYER.findall(name)}
    layers = sorted(numbers) if run.top_layers else None
    settings = peft_config(run.lora, targets(model, run.lora), layers)
    settings.base_model_name_or_path = run.base
    settings.inference_mode = True
    settings.save_pretrained(folder)
    return len(named)
