"""What a step waits for when weights, gradients and moments lie in host memory (`cpu_offload`).

FSDP2 copies a rank's shard to its GPU for every gather (network.py): fp32 of what is trained, the
compute type of what is frozen. Its share of the gradients comes back after every reduction. Both go
on while another layer computes. The update comes after: AdamW runs on the CPUs, which all cards of
a machine share.

Worked example: 7 billion weights on 8 A100, one forward and backward pass a step. A rank's shard is
3.5 GB. Two copies of it and one of the gradients are about 10 GB, at 32 x 0.75 = 24 GB/s 0.43 s.
The update goes through 28 bytes of each of the machine's 7 billion: 196 GB at 100 GB/s are 2 s.
"""

from apps.train.model.hardware import Accelerator
from apps.train.model.shape import ModelShape
from apps.train.planning.memory import (
    MASTER_BYTES,
    Setup,
    frozen_parameters,
    trained_parameters,
)
from apps.train.planning.network import GRADIENT_BYTES, LINE_SHARE, backward_parameters

UPDATE_BYTES = {"fp32": 28, "bf16": 120, "int8": 120}
"""Of host memory that AdamW reads and writes for a weight. fp32: weight, gradient and two moments
read, three of them written. Others: fifteen passes over 8 bytes (adamw.py, which no GPU compiles
here)."""
HOST_GB_PER_S = 100.0
"""Of a machine, in such an update: half of one socket with eight channels of DDR4-3200 (engineering
estimate; no run with cpu_offload was measured on a server)."""


def transfer_s(shape: ModelShape, setup: Setup, accelerator: Accelerator) -> float:
    """Seconds of one optimizer step's copies between host and card."""
    if not setup.cpu_offload or accelerator.host_gb_per_s is None:
        return 0.0
    weight_bytes = MASTER_BYTES if setup.strategy == "fsdp" else setup.compute_bytes
    trained = trained_parameters(shape, setup)
    trained_again, frozen_again = _again(shape, setup)
    frozen = frozen_parameters(shape, setup) + frozen_again
    num_bytes = (trained + trained_again) * weight_bytes + trained * GRADIENT_BYTES
    num_bytes += frozen * setup.compute_bytes
    share = setup.accumulation * num_bytes / setup.world_size
    return share / (LINE_SHARE * accelerator.host_gb_per_s * 1e9)


def _again(shape: ModelShape, setup: Setup) -> tuple[int, int]:
    """Of what is gathered for the backward pass too: trained weights, and frozen ones.

    Of k top layers k - 1 are trained, and what is prefetched below them is frozen.
    """
    again = backward_parameters(shape, setup)
    if setup.adapter_parameters:
        return setup.adapter_parameters, again
    if not setup.trained_layers:
        return again, 0
    trained = min((setup.trained_layers - 1) * shape.layer_parameters, again)
    return trained, again - trained


def update_s(shape: ModelShape, setup: Setup, gpus_per_machine: int) -> float:
    """Seconds of the update of one machine's share of the weights."""
    if not setup.cpu_offload:
        return 0.0
    trained = trained_parameters(shape, setup)
    share = min(gpus_per_machine, setup.world_size) / setup.world_size
    return share * trained * UPDATE_BYTES[setup.optimizer_state] / (HOST_GB_PER_S * 1e9)
