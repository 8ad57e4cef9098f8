"""AdamW, and AdamW whose moments are kept in bf16 or 8 bits.

fp32 moments use torch's fused AdamW. The low-memory ones update one parameter at a time in fp32
and store the moments rounded: bf16, or 8-bit codes with one scale for each block of 256 values
(Dettmers et al., "8-bit Optimizers via Block-wise Quantization"; here with square-root codes, which
spend their resolution near zero as their dynamic codes do). Parameters and arithmetic stay fp32.
Weight decay is for matrices: norms and biases, which are vectors, stay out of it.
On a GPU torch.compile makes one pass over memory of an update, where plain torch makes fifteen.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from apps.train.config import OptimConfig

BLOCK = 256
MOMENTS = ("exp_avg", "exp_avg_sq")
Quantized = tuple[torch.Tensor, torch.Tensor]
"""int8 codes (blocks, BLOCK), fp32 scales (blocks,)"""


Groups = list[torch.nn.Parameter] | list[dict[str, Any]]
"""parameters, or groups of them with settings of their own, as torch's optimizers take them"""


def decay_groups(parameters: Iterable[torch.nn.Parameter], weight_decay: float) -> Groups:
    """Matrices with the weight decay, vectors without; plainly all where there is none.

    (As transformers' Trainer, `get_decay_parameter_names`: it leaves out norms and biases.)
    """
    chosen = list(parameters)
    if not weight_decay:
        return chosen
    vectors = [p for p in chosen if _num_dimensions(p) < 2]
    matrices = [p for p in chosen if _num_dimensions(p) >= 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _num_dimensions(parameter: torch.nn.Parameter) -> int:
    """Of the whole parameter: DeepSpeed has cut the one at hand to nothing."""
    return len(getattr(parameter, "ds_shape", parameter.shape))


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], config: OptimConfig, *, compiled: bool = False
) -> torch.optim.Optimizer:
    """The optimizer of a run. Its learning rate is set before every step."""
    settings = {
        "lr": config.lr,
        "betas": (config.beta1, config.beta2),
        "eps": config.eps,
        "weight_decay": config.weight_decay,
    }
    groups = decay_groups(parameters, config.weight_decay)
    if config.state != "fp32":
        return LowMemoryAdamW(groups, state=config.state, compiled=compiled, **settings)
    optimizer = torch.optim.AdamW(groups, fused=True, **settings)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                **{key: torch.zeros_like(parameter) for key in MOMENTS},
            }
    return optimizer


class LowMemoryAdamW(torch.optim.Optimizer):
    """AdamW with bf16 moments (4 bytes a parameter) or 8-bit ones (2.03 bytes)."""

    def __init__(
        self,
        parameters: Groups,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        state: str,
        compiled: bool,
    ) -> None:
        super().__init__(
            parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )
        self.kind = state
        self._adamw = torch.compile(_adamw) if compiled else _adamw
        for group in self.param_groups:
            for parameter in group["params"]:
                zeros = torch.zeros_like(local(parameter))
                moments = {key: _store(zeros, state) for key in MOMENTS}
                self.state[parameter] = {"step": torch.zeros(()), **moments}

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            known: dict[int, torch.Tensor] = {}  # a copy to the device is waited for: make it once
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                count, grad = self._next_step(parameter), local(parameter.grad)
                if count not in known:
                    known[count] = torch.tensor(_factors(group, count), device=grad.device)
                self._update(parameter, grad, known[count], group)

    def _next_step(self, parameter: torch.nn.Parameter) -> int:
        self.state[parameter]["step"] += 1
        return int(self.state[parameter]["step"])

    def _update(
        self, parameter: torch.nn.Parameter, grad: torch.Tensor, factors: torch.Tensor, group: dict
    ) -> None:
        state, weight = self.state[parameter], local(parameter)
        is_blocked = self.kind == "int8" and weight.numel() % BLOCK == 0
        shape = (-1, BLOCK) if is_blocked else (-1,)
        adamw = self._adamw if is_blocked or self.kind == "bf16" else _adamw  # which pads
        beta1, beta2 = group["betas"]
        state["exp_avg"], state["exp_avg_sq"] = adamw(
            weight.view(shape),
            grad.float().view(shape),
            state["exp_avg"],
            state["exp_avg_sq"],
            factors,
            beta1,
            beta2,
            group["eps"],
        )


def _factors(group: dict, count: int) -> tuple[float, float, float]:
    """What changes with every step: see `_adamw`."""
    beta1, beta2 = group["betas"]
    decay, rate = 1 - group["lr"] * group["weight_decay"], group["lr"] / (1 - beta1**count)
    return decay, rate, 1 - beta2**count


def _adamw(weight, grad, first, second, factors, beta1: float, beta2: float, eps: float):
    """Update an fp32 weight, flat or in blocks, in place; returns both moments as they are stored.

    `factors`: what the weight is multiplied by, the learning rate over the first moment's bias
    correction, the second moment's bias correction.
    """
    decay, rate, correction = factors.unbind()
    mean = _restore(first, grad.shape).lerp_(grad, 1 - beta1)
    square = _restore(second, grad.shape).mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    stored = _stored_like(first, mean), _stored_like(second, square)
    divisor = square.div_(correction).sqrt_().add_(eps)
    weight.mul_(decay).sub_(mean.mul_(rate).div_(divisor))
    return stored


def moments(
    optimizer: torch.optim.Optimizer, named: dict[str, torch.nn.Parameter]
) -> dict[str, torch.Tensor]:
    """Both moments of every parameter, sharded like it; 8-bit ones as the fp32 they stand for.

    (Quantizing that fp32 again gives the same codes, so a checkpoint can be resharded and a resume
    on the same ranks is still exact.)
    """
    found = {}
    for name, parameter in named.items():
        state = optimizer.state[parameter]
        for key in MOMENTS:
            value = state[key]
            if not isinstance(value, DTensor):
                shape = local(parameter).shape
                is_whole = isinstance(value, torch.Tensor)
                value = value.view(shape) if is_whole else _restore(value, shape)
                value = _like(parameter, value)
            found[f"{name}.{key}"] = value
    return found


def set_moments(
    optimizer: torch.optim.Optimizer,
    named: dict[str, torch.nn.Parameter],
    values: dict[str, torch.Tensor],
    updates: int,
) -> None:
    """Inverse of `moments`; `updates` is the number of steps AdamW has taken."""
    for name, parameter in named.items():
        state = optimizer.state[parameter]
        state["step"].fill_(updates)
        for key in MOMENTS:
            value = values[f"{name}.{key}"]
            if isinstance(optimizer, LowMemoryAdamW):
                state[key] = _store(local(value), optimizer.kind)
            else:
                state[key] = value


def _like(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A local tensor as a tensor sharded like `parameter`."""
    if not isinstance(parameter, DTensor):
        return value
    return DTensor.from_local(
        value,
        parameter.device_mesh,
        parameter.placements,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a sharded tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _stored_like(stored: torch.Tensor | Quantized, value: torch.Tensor) -> torch.Tensor | Quantized:
    return _store(value, "bf16" if isinstance(stored, torch.Tensor) else "int8")


def _store(value: torch.Tensor, kind: str) -> torch.Tensor | Quantized:
    return value.flatten().to(torch.bfloat16) if kind == "bf16" else quantize(value)


def _restore(stored: torch.Tensor | Quantized, shape: torch.Size) -> torch.Tensor:
    if isinstance(stored, torch.Tensor):
        return stored.float().view(shape)
    return dequantize(*stored, shape)


def quantize(value: torch.Tensor) -> Quantized:
    """fp32 in 8 bits and a scale a block. Inverse: dequantize.

    code = sign * 127 * sqrt(|x| / largest of its block), rounded.
    """
    flat = value.flatten()
    if flat.numel() % BLOCK:
        flat = torch.nn.functional.pad(flat, (0, -flat.numel() % BLOCK))
    blocks = flat.view(-1, BLOCK)
    scales = blocks.abs().amax(1)
    share = blocks.abs() / scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    codes = (share.sqrt_().mul_(127).round_() * blocks.sign()).to(torch.int8)
    return codes, scales


def dequantize(codes: torch.Tensor, scales: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    share = codes.float().div_(127)
    value = share.abs().mul_(share).mul_(scales[:, None])
    return value.flatten()[: shape.numel()].view(shape)
