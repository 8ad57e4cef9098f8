"""What a run will need and cost, before anything is started.

    python -m apps.train plan --preset vicuna-13b --gpus 8xA100-80GB --price spot
    python -m apps.train plan --preset vicuna-7b --data PACK --gpus 1xH200 --log-format json

Takes every setting of `run`, so what is planned is what is run. Reads the model's shape from
`--base` (a folder's config.json, or a known shape), the size of the data from the pack's pack.json,
measured speed from an earlier run's metrics.jsonl. Writes plan.json and config.yaml to `--save`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

from apps.common.command.events import Reporter
from apps.common.errors import ConfigError
from apps.common.files import storage
from apps.common.files.config import above_zero, at_least, to_dict, write_resolved
from apps.train.batches.order import split
from apps.train.checkpoint import cadence
from apps.train.config import RunConfig
from apps.train.model import hardware, shape
from apps.train.model.hardware import Accelerator
from apps.train.planning import memory, prices, speed, text, workload
from apps.train.planning.result import (
    Checkpoints,
    Cost,
    Data,
    Fit,
    Machines,
    Plan,
    Preemptions,
    Training,
)
from apps.train.presets import PRESETS

PLAN_NAME = "plan.json"
ON_DEMAND_MTBF_H = 168.0
"""Hours between failures of a machine that nobody takes away."""
STALL_FIXED_S = 0.05
"""Part of a checkpoint's stall that does not depend on its size: 39 ms measured for a small state
(benchmarks/LOG.md, 2026-11-23); shards are planned and written in the background."""
BASES = {"vicuna-7b": "llama-7b", "vicuna-13b": "llama-13b", "vicuna-7b-16k": "llama-2-7b"}
MACHINES = {"debug": "2xCPU-4GB"}
"""Where a preset is not meant for the default machines."""


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
    price: str = "spot"
    """column of the price table (spot, on-demand, blog-2023), or US dollars per GPU and hour"""
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
    """write of a checkpoint to storage over all ranks, GB/s"""
    restart_minutes: float = 10.0
    """from losing the machines to training again: new machines, install, load"""
    notice_s: float = 30.0
    """warning before a preemption, seconds (GCP 30, AWS 120)"""
    save: str | None = None
    """folder to write plan.json and the settings to (path or URI)"""


def run_plan(config: PlanConfig, reporter: Reporter) -> None:
    """Print the plan; with `save`, write it as JSON, the settings beside it."""
    plan = make_plan(config)
    if reporter.is_json:
        reporter.event("plan", **to_dict(plan))
    else:
        for line in text.lines(plan):
            reporter.line(line)
    if config.save:
        storage.write_json(storage.join(config.save, PLAN_NAME), to_dict(plan))
        write_resolved(config, config.save)


def make_plan(config: PlanConfig) -> Plan:
    """Everything that follows from the settings; ConfigError says what does not."""
    _check(config)
    model = shape.load(config.base)
    num_gpus, accelerator = hardware.parse(config.gpus)
    price = prices.find(config.price, accelerator.name, config.prices)
    work = _workload(config)
    shape.check_reach(config.base, model.context_tokens, config.rope, work.row_tokens)
    setup = make_setup(config, model, num_gpus, work.row_tokens, on_cpu=accelerator.name == "CPU")
    training = _training(config, model, setup, accelerator, work)
    checkpoints = _checkpoints(config, model, setup, price, training.step_s)
    preemptions = _preemptions(config, training, checkpoints, price)
    usd_per_hour = num_gpus * price.usd_per_gpu_hour
    hours = preemptions.hours
    return Plan(
        model=config.base,
        parameters=model.num_parameters,
        trained_parameters=setup.adapter_parameters or model.num_parameters,
        machines=Machines(num_gpus=num_gpus, accelerator=accelerator.name, price=price),
        memory=_fit(config, model, setup, accelerator),
        data=_data(config, work, setup),
        training=training,
        checkpoints=checkpoints,
        preemptions=preemptions,
        cost=Cost(
            training_usd=training.hours * usd_per_hour,
            expected_usd=None if hours is None else hours * usd_per_hour,
        ),
    )


_POSITIVE = (
    "conversations",
    "tokens_per_conversation",
    "tokens_per_s",
    "staging_gb_per_s",
    "storage_gb_per_s",
)


def _check(config: PlanConfig) -> None:
    above_zero(config, "", *_POSITIVE)
    at_least(0, config, "", "restart_minutes", "notice_s")
    if not 0 < config.fill <= 1:
        raise ConfigError(f"fill is {config.fill}; expected a share above 0 and at most 1.")
    _check_machines(config)


def _check_machines(config: PlanConfig) -> None:
    """The run must be able to use what it is planned on."""
    num_gpus, accelerator = hardware.parse(config.gpus)
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


def _workload(config: PlanConfig) -> workload.Workload:
    if config.data:
        work = workload.from_pack(config.data, config.epochs)
    else:
        work = workload.stated(
            config.conversations,
            config.tokens_per_conversation,
            config.max_length or workload.ROW_TOKENS,
            config.epochs,
            config.fill,
        )
    if config.steps is not None:
        return work.cut(config.steps * config.global_batch_rows)
    return work


def make_setup(
    config: RunConfig, model: shape.ModelShape, world_size: int, row_tokens: int, *, on_cpu: bool
) -> memory.Setup:
    """The switches of a run that decide its memory, on `world_size` ranks."""
    accumulation, rows = split(config.global_batch_rows, world_size, config.micro_batch_rows)
    return memory.Setup(
        world_size=world_size,
        row_tokens=row_tokens,
        micro_batch_rows=rows,
        accumulation=accumulation,
        activation_checkpointing=config.activation_checkpointing,
        optimizer_state=config.optim.state,
        compute_bytes=4 if _may_be_fp32(config.precision, on_cpu) else 2,
        cpu_offload=config.cpu_offload,
        strategy=config.strategy,
        wrap=config.wrap,
        reshard=config.reshard,
        compiled=config.strategy == "fsdp" and config.compiles("cpu" if on_cpu else "cuda"),
        adapter_parameters=adapter_parameters(config, model) if config.adapter == "lora" else 0,
        on_cpu=on_cpu,
    )


def _may_be_fp32(precision: str, on_cpu: bool) -> bool:
    """A CPU that is planned for may be one that `auto` does not use for bf16."""
    return precision == "fp32" or (precision == "auto" and on_cpu)


def adapter_parameters(config: RunConfig, model: shape.ModelShape) -> int:
    """Trainable parameters of the LoRA adapter: rank x (inputs + outputs) of each target."""
    sizes = model.linear_sizes()
    unknown = [name for name in config.lora.targets if name not in sizes]
    if unknown:
        raise ConfigError(f"lora.targets has {unknown}; a LLaMA layer has {', '.join(sizes)}")
    per_layer = sum(sum(sizes[name]) for name in config.lora.targets)
    return config.lora.rank * per_layer * model.num_layers


def _fit(
    config: PlanConfig, model: shape.ModelShape, setup: memory.Setup, accelerator: Accelerator
) -> Fit:
    parts = memory.estimate(model, setup)
    fits = parts.device <= accelerator.memory_bytes
    lora = adapter_parameters(config, model)
    found = [] if fits else memory.remedies(model, setup, accelerator, lora)
    return Fit(
        parts=parts,
        total_bytes=parts.device,
        available_bytes=accelerator.memory_bytes,
        fits=fits,
        switches=tuple(memory.changes(setup, other) for other in found),
    )


def _data(config: PlanConfig, work: workload.Workload, setup: memory.Setup) -> Data:
    return Data(
        epochs=work.epochs,
        epoch_tokens=work.epoch_tokens,
        epoch_rows=work.epoch_rows,
        row_tokens=work.row_tokens,
        fill=work.fill,
        tokens=work.tokens,
        steps=work.steps(config.global_batch_rows),
        global_batch_rows=config.global_batch_rows,
        micro_batch_rows=setup.micro_batch_rows,
        accumulation=setup.accumulation,
        source=work.source,
    )


def _training(
    config: PlanConfig,
    model: shape.ModelShape,
    setup: memory.Setup,
    accelerator: Accelerator,
    work: workload.Workload,
) -> Training:
    rate = _speed(config, model, setup, accelerator, work.attended_tokens)
    seconds = work.slots / (rate.slots_per_s * setup.world_size)
    return Training(
        mfu=rate.mfu,
        tokens_per_s_per_gpu=rate.slots_per_s * work.fill,
        step_s=seconds / work.steps(config.global_batch_rows),
        hours=seconds / 3600,
        gpu_hours=seconds / 3600 * setup.world_size,
        source=rate.source,
    )


def _speed(
    config: PlanConfig,
    model: shape.ModelShape,
    setup: memory.Setup,
    accelerator: Accelerator,
    attended_tokens: float,
) -> speed.Speed:
    if config.tokens_per_s is not None:
        source = "stated with --tokens-per-s"
        return speed.from_rate(model, setup, accelerator, config.tokens_per_s, source)
    if config.measured is not None:
        rate = speed.measured_rate(config.measured)
        return speed.from_rate(model, setup, accelerator, rate, f"measured in {config.measured}")
    if config.mfu is not None:
        return speed.from_mfu(model, setup, accelerator, config.mfu)
    return speed.published(model, setup, accelerator, attended_tokens)


def _checkpoints(
    config: PlanConfig,
    model: shape.ModelShape,
    setup: memory.Setup,
    price: prices.Price,
    step_s: float,
) -> Checkpoints:
    trained = setup.adapter_parameters or model.num_parameters
    size = trained * (memory.MASTER_BYTES + memory.STORED_MOMENT_BYTES[setup.optimizer_state])
    measured = speed.measured_stall_s(config.measured) if config.measured else None
    stall = measured or STALL_FIXED_S + size / setup.world_size / (config.staging_gb_per_s * 1e9)
    flush = size / (config.storage_gb_per_s * 1e9)
    between = _mtbf_h(config, price) * 3600
    stated = config.checkpoint.interval_s
    if config.checkpoint.interval_steps is not None:
        stated = config.checkpoint.interval_steps * step_s
    interval = stated or cadence.optimal_interval_s(stall, between, flush)
    return Checkpoints(
        size_bytes=size,
        stall_s=stall,
        flush_s=flush,
        interval_s=interval,
        overhead=cadence.overhead(stall, between, interval),
    )


def _mtbf_h(config: PlanConfig, price: prices.Price) -> float:
    return config.checkpoint.mtbf_h if price.preemptible else ON_DEMAND_MTBF_H


def _preemptions(
    config: PlanConfig, training: Training, checkpoints: Checkpoints, price: prices.Price
) -> Preemptions:
    mtbf_h = _mtbf_h(config, price)
    restart_s = config.restart_minutes * 60
    lost = cadence.lost_work(
        checkpoints.interval_s, checkpoints.flush_s, training.step_s, config.notice_s
    )
    wall_s = cadence.wall_clock_s(
        training.hours * 3600,
        checkpoints.stall_s,
        checkpoints.interval_s,
        mtbf_h * 3600,
        lost.expected_s + restart_s,
    )
    ends = math.isfinite(wall_s)
    return Preemptions(
        mtbf_h=mtbf_h,
        expected=wall_s / 3600 / mtbf_h if ends else None,
        lost_work=lost,
        restart_s=restart_s,
        notice_s=config.notice_s,
        hours=wall_s / 3600 if ends else None,
    )


def presets() -> dict[str, Callable[[], PlanConfig]]:
    """The presets of `run`, each with the model it is meant for."""
    return {name: partial(_preset, name) for name in PRESETS}


def _preset(name: str) -> PlanConfig:
    recipe = PRESETS[name]()
    settings = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    machines = {"gpus": MACHINES[name]} if name in MACHINES else {}
    return PlanConfig(**{**settings, **machines, "base": BASES.get(name, name)})
