"""Which type a run computes in when its settings leave that to the machine."""

from typing import Literal

import torch

Precision = Literal["bf16", "fp32"]


def resolve(precision: Literal["auto", "bf16", "fp32"], device: str) -> Precision:
    """What `precision` means on `device`, of this machine if it is a CPU."""
    if precision != "auto":
        return precision
    return "fp32" if device == "cpu" and not cpu_has_bf16() else "bf16"


def cpu_has_bf16() -> bool:
    """Does this CPU multiply in bf16? In software it is 10 to 40 times slower than fp32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
