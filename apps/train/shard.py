"""FSDP2: the whole parallel plan on one page.

Activation checkpointing, then torch.compile, then `fully_shard`, each decoder layer first and the
root last. Weights are kept in fp32, gathered in bf16, and gradients are summed (not averaged) in
fp32, because the loss is already divided by the supervised tokens of the whole global batch.
"""

import functools
from typing import Any

import torch
import torch.nn.attention.varlen  # registers torch_attn::_varlen_attn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from apps.train.config import RunConfig

_PREFETCH_LAYERS = 2


def parallelize(
    root: torch.nn.Module, layers: list[torch.nn.Module], mesh: DeviceMesh, config: RunConfig
) -> list[FSDPModule]:
    """Shard `root` in place over a one-dimensional mesh; the units, the root last."""
    recompute(layers, config)
    for layer in layers:
        if config.compile == "on" or (config.compile == "auto" and mesh.device_type == "cuda"):
            layer.compile()
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if config.precision == "bf16" else torch.float32,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    offload = CPUOffloadPolicy(pin_memory=mesh.device_type != "cpu")
    options: dict[str, Any] = {
        "mesh": mesh,
        "mp_policy": policy,
        "offload_policy": offload if config.cpu_offload else OffloadPolicy(),
    }
    units: list[FSDPModule] = []
    if config.wrap == "layer":
        last = len(layers) - 1
        units = [
            fully_shard(layer, reshard_after_forward=index < last, **options)
            for index, layer in enumerate(layers)
        ]
        _prefetch(units)
    units.append(fully_shard(root, reshard_after_forward=False, **options))
    for unit in units:
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    return units


def _prefetch(layers: list[FSDPModule]) -> None:
    for index, layer in enumerate(layers):
        layer.set_modules_to_forward_prefetch(layers[index + 1 : index + 1 + _PREFETCH_LAYERS])
        before = layers[max(index - _PREFETCH_LAYERS, 0) : index]
        layer.set_modules_to_backward_prefetch(before[::-1])


def recompute(layers: list[torch.nn.Module], config: RunConfig) -> None:
    """Recompute in the backward pass what the settings do not let the layers keep."""
    if config.activation_checkpointing != "none":
        for layer in layers:
            _recompute(layer, selective=config.activation_checkpointing == "selective")


def _recompute(layer: torch.nn.Module, *, selective: bool) -> None:
    """Replace the layer's forward in place: names of parameters stay as they are.

    By a function, because torch.compile gives up on a functools.partial without a word.
    """
    once, options = layer.forward, {"context_fn": _selective_contexts} if selective else {}

    @functools.wraps(once)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(once, *args, use_reentrant=False, **options, **kwargs)

    layer.forward = forward


def _selective_contexts():
    """Keep attention outputs and every second matrix product; recompute the rest.

    (The policy of torchtitan's per-op selective checkpointing.)
    """
    aten = torch.ops.aten
    products = {aten.mm.default, aten.addmm.default}
    kept = {
        aten._scaled_dot_product_flash_attention.default,
        aten._scaled_dot_product_flash_attention_for_cpu.default,
        aten._scaled_dot_product_efficient_attention.default,
        torch.ops.torch_attn._varlen_attn.default,
    }
    seen = {"forward": 0, "recompute": 0}

    def policy(context, operation, *args, **kwargs) -> CheckpointPolicy:
        if operation in products:
            phase = "recompute" if context.is_recompute else "forward"
            seen[phase] += 1
            keep = seen[phase] % 2 == 1
            return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE
        return (
            CheckpointPolicy.MUST_SAVE if operation in kept else CheckpointPolicy.PREFER_RECOMPUTE
        )

    return create_selective_checkpoint_contexts(policy)
