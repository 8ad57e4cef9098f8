"""Settings of `plan`: those of `run`, and what to plan it on."""

from dataclasses import dataclass, replace

from apps.common.errors import ConfigError
from apps.common.files.config import above_zero, at_least, flag
from apps.train.config import LoraConfig, RunConfig
from apps.train.model import hardware
from apps.train.model.hardware import Accelerator
from apps.train.planning import workload
from apps.train.unread import check_read


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanConfig(RunConfig):
    """Every setting of `run`, and what to plan it on."""

    base: str = "llama-7b"
    """model folder, or a known shape: llama-7b, llama-13b, llama-2-7b, llama-3-8b, debug ..."""
    data: str = ""
    """folder written by `python -m apps.data pack`; without it the size is stated below"""
    out: str = ""
    """not used by the plan"""
    gpus: str = "8xA100-80GB"
    """number and kind of devices, such as 8xA100-80GB, 1xH200 or 2xCPU-4GB"""
    gpu_flops: float | None = None
    """dense bf16 FLOP/s of a card that Cria does not know, such as 4e14"""
    gpu_memory_gb: float | None = None
    """memory of such a card, GB"""
    gpus_per_machine: int = 8
    """more than these are spread over machines, which the network joins"""
    network: str = "tcp"
    """between machines: tcp, efa, infiniband, infiniband-ndr, or Gbit/s of one machine"""
    price: str = "spot"
    """column of the price table (spot, on-demand, blog-2023), or US dollars per GPU and hour;
    a card without such a price is planned without dollars"""
    prices: str | None = None
    """price table to use in place of the one in the repository (YAML)"""
    conversations: int = workload.VICUNA_CONVERSATIONS
    """conversations in one epoch, when no pack is given"""
    tokens_per_conversation: int = workload.VICUNA_TOKENS_PER_CONVERSATION
    """real tokens of a conversation, on average, when no pack is given"""
    fill: float = workload.PACKED_FILL
    """real tokens as a share of packed slots, when no pack is given (padding: about .757)"""
    mfu: float | None = None
    """model FLOPs utilisation, 0 to 1, as in metrics.jsonl; default: the accelerator's published"""
    tokens_per_s: float | None = None
    """token slots a second on one device, in place of an MFU"""
    measured: str | None = None
    """an earlier run (its OUT) whose metrics give the speed and the checkpoint's stall"""
    staging_gb_per_s: float = 5.0
    """copy of a rank's state to host memory, GB/s; training stands still meanwhile"""
    storage_gb_per_s: float = 2.0
    """write of a checkpoint to storage, and reading it at a restart, over all ranks, GB/s"""
    restart_minutes: float = 10.0
    """from losing the machines to training again: new machines, install, load"""
    notice_s: float = 30.0
    """warning before a preemption, seconds (GCP 30, AWS 120)"""
    trace: tuple[str, ...] = ()
    """folders of availability traces of spot machines, at any depth: one JSON file a zone"""
    save: str | None = None
    """folder to write plan.json and the settings to (path or URI)"""


def machines(config: PlanConfig) -> tuple[int, Accelerator]:
    """How many devices, and which: of the table, or described by the settings."""
    count, name = hardware.count_and_name(config.gpus)
    if config.gpu_flops is None and config.gpu_memory_gb is None:
        return count, hardware.by_name(name)
    if config.gpu_flops is None or config.gpu_memory_gb is None:
        raise ConfigError("A card is described by --gpu-flops and --gpu-memory-gb together.")
    return count, hardware.described(name, config.gpu_flops, config.gpu_memory_gb)


_POSITIVE = (
    "gpu_flops",
    "gpu_memory_gb",
    "gpus_per_machine",
    "conversations",
    "tokens_per_conversation",
    "tokens_per_s",
    "staging_gb_per_s",
    "storage_gb_per_s",
)


def check(config: PlanConfig) -> None:
    """ConfigError for what no run could have."""
    _check_read(config)
    above_zero(config, "", *_POSITIVE)
    at_least(0, config, "", "restart_minutes", "notice_s")
    if not 0 < config.fill <= 1:
        raise ConfigError(f"fill is {config.fill}; expected a share above 0 and at most 1.")
    _check_answers_once(config)
    _check_machines(config)


def _check_read(config: PlanConfig) -> None:
    """As of a run, but for the adapter: a plan of all weights may propose one as a remedy."""
    check_read(config if config.adapter == "lora" else replace(config, lora=LoraConfig()))


_SPEEDS = ("mfu", "tokens_per_s", "measured")
_SIZES = ("conversations", "tokens_per_conversation", "fill")


def _check_answers_once(config: PlanConfig) -> None:
    """Refuse two answers to one question: of the speed, and of the data's size.

    `measured` beside `tokens_per_s` still gives the checkpoint's stall.
    """
    speeds = [flag(name) for name in _SPEEDS if getattr(config, name) is not None]
    if config.mfu is not None and len(speeds) > 1:
        raise ConfigError(f"{' and '.join(speeds)} each say how fast it goes; give one of them.")
    defaults = PlanConfig()
    stated = [flag(n) for n in _SIZES if getattr(config, n) != getattr(defaults, n)]
    if config.data and stated:
        raise ConfigError(
            f"{stated[0]} is not read where --data has the size of the data; leave one of them out."
        )


def _check_machines(config: PlanConfig) -> None:
    """The run must be able to use what it is planned on."""
    num_gpus, accelerator = machines(config)
    if config.workers not in (None, num_gpus):
        raise ConfigError(
            f"workers is {config.workers} but --gpus {config.gpus} has {num_gpus}; give --workers "
            f"{num_gpus} or --gpus {config.workers}x{config.gpus.split('x', 1)[-1]}."
        )
    if num_gpus > config.global_batch_rows:
        raise ConfigError(
            f"--gpus {config.gpus} has {num_gpus} but a step has {config.global_batch_rows} rows; "
            "take fewer, or a larger --global-batch-rows."
        )
    if config.device != "auto" and (config.device == "cpu") != (accelerator.name == "CPU"):
        other = "--device auto" if config.device == "cpu" else "--device cpu"
        raise ConfigError(
            f"device is {config.device} but the plan is for {config.gpus}; give {other}, or "
            f"--gpus {'2xCPU-4GB' if config.device == 'cpu' else '8xA100-80GB'}."
        )
