"""Accelerators by name: memory one process can use and dense bf16 peak; and how it is allocated.

Memory is what CUDA reports as total for the card, a little under the name's figure. Peaks are the
vendor's dense bf16 tensor-core figures with fp32 sums (NVIDIA and AMD data sheets; sparsity not
counted). Links are the vendor's figure for one direction between cards of a machine: NVLink,
Infinity Fabric, or the PCIe slot.
"""

import os
import re
from dataclasses import dataclass

from apps.common.errors import ConfigError

GIB = 1 << 30
TERA = 1e12
CPU_FLOPS = 4e10
CPU_SOURCE = "roughly, of one server core in fp32; give --measured RUN for yours"
"""The debug preset on two shared EPYC cores, 2026-11-25: 5,000 tokens/s of 20 MFLOP each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    """One kind of device."""

    name: str
    """Name on the command line and in the price table."""
    memory_bytes: int
    """Bytes one process can allocate on it."""
    peak_flops: float | None
    """Dense bf16 FLOP/s; None where no figure is meaningful (a CPU)."""
    link_gb_per_s: float | None = None
    """To the other cards of its machine, one direction, GB/s; None: not known, taken as free."""
    host_gb_per_s: float | None = None
    """To host memory by the PCIe slot, one direction, GB/s; None: not known, taken as free."""
    cuda_name: str = ""
    """Words of the name that CUDA reports, to recognise the card: a regular expression."""
    mfu: float | None = None
    """Utilisation (6N + 12 L d s) to expect; None where nobody published one."""
    mfu_source: str = ""
    """Who measured it, and on what."""
    mfu_checkpointing: str = "none"
    """Activation checkpointing that it was measured with."""


def _gpu(
    name: str,
    memory_gib: float,
    peak_tflops: float,
    link_gb_per_s: float,
    cuda_name: str,
    mfu: tuple[float, str, str] | None = None,
    host_gb_per_s: float | None = None,
) -> Accelerator:
    """`host_gb_per_s`: where the cards are linked by something else than the slot."""
    return Accelerator(
        name=name,
        memory_bytes=int(memory_gib * GIB),
        peak_flops=peak_tflops * TERA,
        link_gb_per_s=link_gb_per_s,
        host_gb_per_s=host_gb_per_s or link_gb_per_s,
        cuda_name=cuda_name,
        mfu=mfu[0] if mfu else None,
        mfu_source=mfu[1] if mfu else "",
        mfu_checkpointing=mfu[2] if mfu else "none",
    )


_A100 = (0.5957, "published: llm-foundry, 13B, 2,048 tokens, 8xA100-80GB", "none")
_A100_40 = (0.4394, "published: llm-foundry, 13B, 2,048 tokens, 8xA100-40GB", "full")
_H100 = (0.3979, "published: llm-foundry, 13B, 2,048 tokens, 8xH100", "none")
_H200 = (0.53, "measured: benchmarks/LOG.md, 7B, 2,048 tokens, one H200 alone", "elementwise")

PCIE_4, PCIE_5 = 32, 64
"""GB/s of sixteen lanes, one direction."""

ACCELERATORS = (
    _gpu("A100-40GB", 39.4, 312, 300, "A100-SXM4-40GB", _A100_40, PCIE_4),
    _gpu("A100-40GB", 39.4, 312, PCIE_4, "A100-PCIE-40GB", _A100_40),
    _gpu("A100-80GB", 79.1, 312, 300, "A100", _A100, PCIE_4),
    _gpu("H200", 139.7, 989, 450, "H200(?! NVL)", _H200, PCIE_5),
    _gpu("H100", 79.1, 989, 450, "H100(?! PCIe| NVL)", _H100, PCIE_5),
    _gpu("B200", 178.3, 2250, 900, "B200", None, PCIE_5),
    _gpu("MI300X", 191.5, 1307, 448, "MI300X", None, PCIE_5),
    _gpu("L40S", 44.4, 362, PCIE_4, "L40S"),
    _gpu("A10G", 22.1, 70, PCIE_4, "A10G"),
    _gpu("L4", 22.0, 121, PCIE_4 / 2, "L4"),
    _gpu("RTX-4090", 23.5, 165, PCIE_4, "RTX 4090(?! Laptop| D)"),
    _gpu("RTX-5090", 31.3, 210, PCIE_5, "RTX 5090(?! Laptop| D)"),
)


def by_name(name: str) -> Accelerator:
    """The accelerator of a command-line name; `CPU-8GB` is one process with that much memory."""
    if cpu := re.fullmatch(r"CPU-(\d+(?:\.\d+)?)GB", name, re.IGNORECASE):
        return Accelerator(name="CPU", memory_bytes=int(float(cpu[1]) * GIB), peak_flops=None)
    for accelerator in ACCELERATORS:
        if accelerator.name.lower() == name.lower():
            return accelerator
    known = ", ".join(dict.fromkeys(a.name for a in ACCELERATORS))
    raise ConfigError(
        f"unknown accelerator {name!r}; expected how many and which, such as 8xA100-80GB. Known "
        f"are {known} and CPU-<n>GB; any other takes --gpu-flops and --gpu-memory-gb"
    )


def described(name: str, peak_flops: float, memory_gb: float) -> Accelerator:
    """A card that the table does not know, from its data sheet; nothing is known of its links."""
    return Accelerator(name=name, memory_bytes=int(memory_gb * 1e9), peak_flops=peak_flops)


def recognise(cuda_name: str) -> Accelerator | None:
    """The accelerator behind `torch.cuda.get_device_name()`, or None if it is not in the table.

    Nor is a slower card of a like name (L40, H100 PCIe), or a slice of one: the peak is another.
    """
    if " MIG " in cuda_name:
        return None
    known = (a for a in ACCELERATORS if a.cuda_name)
    return next((a for a in known if re.search(rf"\b{a.cuda_name}\b", cuda_name)), None)


def parse(gpus: str) -> tuple[int, Accelerator]:
    """Read `8xA100-80GB` (or a bare name, for one)."""
    count, name = count_and_name(gpus)
    return count, by_name(name)


def count_and_name(gpus: str) -> tuple[int, str]:
    """`8xA100-80GB` as (8, "A100-80GB")."""
    match = re.fullmatch(r"(?:(\d+)x)?(.+)", gpus)
    if match is None or match[1] == "0":
        raise ConfigError(f"--gpus {gpus!r} is not a count and a name; write it as 8xA100-80GB")
    return int(match[1] or 1), match[2]


_ALLOCATOR_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Either may be set by the user."""


def allocator_environment() -> dict[str, str]:
    """What a process that uses a GPU wants in its environment before it does.

    Freed pieces of memory are joined to larger ones, whatever their size.
    """
    if any(name in os.environ for name in _ALLOCATOR_SETTINGS):
        return {}
    return {_ALLOCATOR_SETTINGS[0]: "expandable_segments:True"}
