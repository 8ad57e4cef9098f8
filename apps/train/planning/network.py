"""What ranks spend on telling each other weights and gradients.

FSDP gathers the weights of every layer for the forward pass, all but the last again for the
backward pass, and adds up the gradients over all ranks. Both go on while another layer computes, so
a step takes the longer of computing and exchanging.

A ring moves P bytes to W ranks in P (W-1)/W / b seconds, b being its slowest part: the link between
two cards of a machine, or what a machine has to the network (a ring enters each machine once).
Worked example: 13 billion weights of 2 bytes on two machines of 8 A100 with 100 Gbit/s each. The
network gives 12.5 x 0.75 = 9.4 GB/s, the links 225. One gather takes 26 x 15/16 / 9.4 = 2.6 s.
"""

import math
from dataclasses import dataclass

from apps.common.errors import ConfigError
from apps.train.model.hardware import Accelerator
from apps.train.model.shape import ModelShape
from apps.train.planning.memory import Setup, trained_parameters

LINE_SHARE = 0.75
"""Of a link's or network's rate that collectives reach: NCCL's tests show 230 of 300 GB/s between
A100s of a machine (notes of NVIDIA/nccl-tests, PERFORMANCE.md)."""
GRADIENT_BYTES = 4
"""Gradients are added up in fp32."""
GBIT_PER_S = {"tcp": 100.0, "efa": 400.0, "infiniband": 1600.0, "infiniband-ndr": 3200.0}
"""Of one machine, one direction, by the clouds' own instance pages, seen 2026-11: tcp: GCP a2; efa:
AWS p4d; infiniband: Azure ND A100 v4, 8 x 200; infiniband-ndr: ND H100 v5 and AWS p5, 8 x 400."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """How the cards of a run reach each other."""

    num_machines: int
    name: str
    """Kind of the network between machines; empty for one machine."""
    gb_per_s: float | None
    """What collectives reach at the slowest part, GB/s; None: not known, taken as free."""


def between(num_gpus: int, accelerator: Accelerator, per_machine: int, kind: str) -> Network:
    """`kind` is a name of GBIT_PER_S, or a machine's Gbit/s as a number."""
    num_machines = -(-num_gpus // per_machine)
    rates = [accelerator.link_gb_per_s] if accelerator.link_gb_per_s and num_gpus > 1 else []
    if num_machines > 1:
        rates.append(gbit_per_s(kind) / 8)
    return Network(
        num_machines=num_machines,
        name=kind if num_machines > 1 else "",
        gb_per_s=LINE_SHARE * min(rates) if rates else None,
    )


def gbit_per_s(kind: str) -> float:
    """Gbit/s of a machine."""
    if kind in GBIT_PER_S:
        return GBIT_PER_S[kind]
    try:
        rate = float(kind)
    except ValueError:
        rate = 0.0
    if not 0 < rate < math.inf:
        raise ConfigError(
            f"network is {kind!r}; expected one of {', '.join(GBIT_PER_S)}, or a machine's Gbit/s "
            "as a number"
        )
    return rate


def backward_parameters(shape: ModelShape, setup: Setup) -> int:
    """Weights that are gathered for a backward pass, at most.

    FSDP2 leaves the last layer and what lies outside the layers as the forward pass gathered them,
    and with `wrap root` everything. Of k top layers the last is there too, and two below the lowest
    are prefetched: k + 1 layers. (Counted in FSDP2 of torch 2.13 on two ranks, of six layers: 5
    where all are trained, 3 for k = 2, 4 for k = 3, 5 for k = 5.) ZeRO-3 gathers everything.
    """
    if setup.strategy == "deepspeed":
        return shape.num_parameters
    if setup.wrap == "root":
        return 0
    layers = (setup.trained_layers or shape.num_layers) + 1
    return min(layers, shape.num_layers - 1) * shape.layer_parameters


def exchange_s(shape: ModelShape, setup: Setup, network: Network) -> float:
    """Seconds that the gathers and reductions of one optimizer step take."""
    if network.gb_per_s is None or setup.world_size == 1:
        return 0.0
    trained = trained_parameters(shape, setup)
    gathered = shape.num_parameters
    passes = 1
    if setup.reshard == "layer":
        gathered += backward_parameters(shape, setup)
        passes = setup.accumulation
    num_bytes = passes * (gathered * setup.compute_bytes + trained * GRADIENT_BYTES)
    others = (setup.world_size - 1) / setup.world_size
    return num_bytes * others / (network.gb_per_s * 1e9)
