"""AdamW, and AdamW whose moments are kept in bf16 or 8 bits.

fp32 moments use torch's fused AdamW. The low-memory ones update one parameter at a time in fp32
and store the moments rounded: bf16, or 8-bit codes with one scale for each block of 256 values
(Dettmers et al., "8-bit Optimizers via Block-wise Quantization"; here with square-root codes, which
spend their resolution near zero as their dynamic codes do). Parameters and arithmetic stay fp32.
"""

from collections.abc import Iterable

import torch
from torch.distributed.tensor import DTensor

from apps.train.config import OptimConfig

BLOCK = 256
_MOMENTS = ("exp_avg", "exp_avg_sq")
Quantized = tuple[torch.Tensor, torch.Tensor]
"""int8 codes (blocks, BLOCK), fp32 scales (blocks,)"""


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], config: OptimConfig
) -> torch.optim.Optimizer:
    """The optimizer of a run. Its learning rate is set before every step."""
    settings = {
        "lr": config.lr,
        "betas": (config.beta1, config.beta2),
        "eps": config.eps,
        "weight_decay": config.weight_decay,
    }
    if config.state != "fp32":
        return LowMemoryAdamW(parameters, state=config.state, **settings)
    optimizer = torch.optim.AdamW(parameters, fused=True, **settings)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                **{key: torch.zeros_like(parameter) for key in _MOMENTS},
            }
    return optimizer


class LowMemoryAdamW(torch.optim.Optimizer):
    """AdamW with bf16 moments (4 bytes a parameter) or 8-bit ones (2.03 bytes)."""

    def __init__(self, parameters, *, lr, betas, eps, weight_decay, state) -> None:
        super().__init__(
            parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )
        self.kind = state
        for group in self.param_groups:
            for parameter in group["params"]:
                zeros = torch.zeros_like(local(parameter))
                moments = {key: _store(zeros, state) for key in _MOMENTS}
                self.state[parameter] = {"step": torch.zeros(()), **moments}

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, local(parameter.grad).float(), group)

    def _update(self, parameter: torch.nn.Parameter, grad: torch.Tensor, group: dict) -> None:
        state, weight = self.state[parameter], local(parameter)
        state["step"] += 1
        count, (beta1, beta2) = int(state["step"]), group["betas"]
        first = _restore(state["exp_avg"], grad.shape).lerp_(grad, 1 - beta1)
        second = _restore(state["exp_avg_sq"], grad.shape).mul_(beta2)
        second.addcmul_(grad, grad, value=1 - beta2)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        divisor = (second / (1 - beta2**count)).sqrt_().add_(group["eps"])
        weight.addcdiv_(first, divisor, value=-group["lr"] / (1 - beta1**count))
        state["exp_avg"] = _store(first, self.kind)
        state["exp_avg_sq"] = _store(second, self.kind)


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
        for key in _MOMENTS:
            value = state[key]
            if not isinstance(value, DTensor):
                shape = local(parameter).shape
                value = value if isinstance(value, torch.Tensor) else _restore(value, shape)
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
        for key in _MOMENTS:
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


def _store(value: torch.Tensor, kind: str) -> torch.Tensor | Quantized:
    return value.to(torch.bfloat16) if kind == "bf16" else quantize(value)


def _restore(stored: torch.Tensor | Quantized, shape: torch.Size) -> torch.Tensor:
    if isinstance(stored, torch.Tensor):
        return stored.float()
    return dequantize(*stored, shape)


def quantize(value: torch.Tensor) -> Quantized:
    """fp32 in 8 bits and a scale a block. Inverse: dequantize.

    code = sign * 127 * sqrt(|x| / largest of its block), rounded.
    """
    flat = value.flatten()
    blocks = torch.nn.functional.pad(flat, (0, -flat.numel() % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(1)
    share = blocks.abs() / scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    codes = (share.sqrt_().mul_(127).round_() * blocks.sign()).to(torch.int8)
    return codes, scales


def dequantize(codes: torch.Tensor, scales: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    share = codes.float().div_(127)
    value = share.abs().mul_(share).mul_(scales[:, None])
    return value.flatten()[: shape.numel()].view(shape)
