"""FSDP2: the whole parallel plan on one page.

Activation checkpointing, then torch.compile, then `fully_shard`, each decoder layer first and the
root last. Trained weights are kept in fp32 and gathered in bf16; frozen ones are kept as they are
gathered. Gradients are summed (not averaged) in fp32, because the loss is already divided by the
supervised tokens of the whole global batch.

`reshard` says how often: layer by layer in each forward and backward pass, or once an optimizer
step, where `before_backward` tells the units which backward pass is the step's last.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
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
Contexts = Callable[[], tuple[AbstractContextManager[object], AbstractContextManager[object]]]
"""of a layer's forward pass, and of its repetition"""


def parallelize(
    root: torch.nn.Module, layers: list[torch.nn.Module], mesh: DeviceMesh, config: RunConfig
) -> list[FSDPModule]:
    """Shard `root` in place over a one-dimensional mesh; the units, the root last."""
    recompute(layers, config)
    for layer in layers:
        if config.compiles(mesh.device_type):
            layer.compile()
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    frozen = {parameter for parameter in root.parameters() if not parameter.requires_grad}
    for parameter in frozen:
        parameter.data = parameter.data.to(dtype)
    is_whole = mesh.size() == 1 and not config.cpu_offload
    policy = MixedPrecisionPolicy(
        param_dtype=dtype,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    offload = CPUOffloadPolicy(pin_memory=mesh.device_type != "cpu")
    shard = functools.partial(
        fully_shard,
        mesh=mesh,
        mp_policy=policy,
        offload_policy=offload if config.cpu_offload else OffloadPolicy(),
        ignored_params=frozen if is_whole else None,  # nothing to gather
    )
    units: list[FSDPModule] = []
    if config.wrap == "layer":
        num_dropped = len(layers) - 1 if config.reshard == "layer" else 0
        units = [
            shard(layer, reshard_after_forward=index < num_dropped)
            for index, layer in enumerate(layers)
        ]
        _prefetch(units)
    units.append(shard(root, reshard_after_forward=False))
    for unit in units:
        if mesh.size() > 1:  # one rank would divide every gradient by 1, a copy of them all
            unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    return units


def before_backward(root: FSDPModule, config: RunConfig, *, is_last: bool) -> None:
    """Tell the units below `root` whether this backward pass is the last of its step."""
    root.set_is_last_backward(is_last)
    if config.reshard == "step":
        root.set_requires_gradient_sync(is_last)
        root.set_reshard_after_backward(is_last)


def _prefetch(layers: list[FSDPModule]) -> None:
    for index, layer in enumerate(layers):
        layer.set_modules_to_forward_prefetch(layers[index + 1 : index + 1 + _PREFETCH_LAYERS])
        before = layers[max(index - _PREFETCH_LAYERS, 0) : index]
        layer.set_modules_to_backward_prefetch(before[::-1])


def recompute(layers: list[torch.nn.Module], config: RunConfig) -> None:
    """Recompute in the backward pass what the settings do not let the layers keep."""
    if config.activation_checkpointing != "none":
        for layer in layers:
            _recompute(layer, _CONTEXTS[config.activation_checkpointing])


def _recompute(layer: torch.nn.Module, contexts: Contexts | None) -> None:
    """Replace the layer's forward in place: names of parameters stay as they are.

    By a function, because torch.compile gives up on a functools.partial without a word.
    """
    once = layer.forward

    @functools.wraps(once)
    def forward(*args: torch.Tensor, **kwargs: Any) -> object:
        if contexts is None:  # torch.compile refuses checkpoint's own context_fn when it is named
            return checkpoint(once, *args, use_reentrant=False, **kwargs)
        return checkpoint(once, *args, use_reentrant=False, context_fn=contexts, **kwargs)

    layer.forward = forward


def _keep_products():
    """Keep attention outputs and all matrix products; recompute the rest."""
    return _contexts(every=1)


def _keep_half_of_the_products():
    """Keep attention outputs and every second matrix product; recompute the rest.

    (The policy of torchtitan's per-op selective checkpointing.)
    """
    return _contexts(every=2)


_CONTEXTS: dict[str, Contexts | None] = {
    "elementwise": _keep_products,
    "selective": _keep_half_of_the_products,
    "full": None,
}


def _contexts(every: int):
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
            keep = seen[phase] % every == 1 % every
            return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE
        return (
            CheckpointPolicy.MUST_SAVE if operation in kept else CheckpointPolicy.PREFER_RECOMPUTE
        )

    return create_selective_checkpoint_contexts(policy)
