"""What a run will need and cost, before anything is started.

    python -m apps.train plan --preset vicuna-13b --gpus 8xA100-80GB --price spot
    python -m apps.train plan --preset vicuna-7b --data PACK --gpus 1xH200 --log-format json

Takes every setting of `run`, so what is planned is what is run. Reads the model's shape from
`--base` (a folder's config.json, or a known shape), the size of the data from the pack's pack.json,
measured speed from an earlier run's metrics.jsonl. Writes plan.json and config.yaml to `--save`.
"""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial

from apps.common.command.events import Reporter
from apps.common.command.result import show_and_save
from apps.common.errors import ConfigError
from apps.train.batches.order import split
from apps.train.checkpoint import cadence
from apps.train.config import RunConfig
from apps.train.model import shape
from apps.train.model.hardware import Accelerator
from apps.train.planning import memory, prices, sizing, speed, text, workload
from apps.train.planning.result import (
    Checkpoints,
    Cost,
    Data,
    Fit,
    Machines,
    Plan,
    Preemptions,
    Remedy,
    Sizing,
    Training,
    Waiting,
)
from apps.train.planning.settings import PlanConfig, check, machines
from apps.train.planning.timing import training
from apps.train.presets import PRESETS
from apps.train.spot.planned import job_of, waiting

PLAN_NAME = "plan.json"
ON_DEMAND_MTBF_H = 168.0
"""Hours between failures of a machine that nobody takes away."""
STALL_FIXED_S = 0.05
"""Part of a checkpoint's stall that does not depend on its size: 39 ms measured for a small state
(benchmarks/LOG.md, 2026-11-23); shards are planned and written in the background."""
BASES = {"vicuna-7b": "llama-7b", "vicuna-13b": "llama-13b", "vicuna-7b-16k": "llama-2-7b"}
MACHINES = {"debug": "2xCPU-4GB"}
"""Where a preset is not meant for the default machines."""


def run_plan(config: PlanConfig, reporter: Reporter) -> None:
    """Print the plan; with `save`, write it as JSON, the settings beside it."""
    plan = make_plan(config)
    show_and_save(plan, PLAN_NAME, text.lines(plan), config, reporter)


def make_plan(config: PlanConfig) -> Plan:
    """Everything that follows from the settings; ConfigError says what does not."""
    check(config)
    model = shape.load(config.base)
    num_gpus, accelerator = machines(config)
    price = prices.find(config.price, accelerator.name, config.prices)
    work = _workload(config)
    shape.check_reach(config.base, model.context_tokens, config.rope, work.row_tokens)
    shape.check_top_layers(config.top_layers, model.num_layers)
    shape.check_strategy(config.strategy, model.family)
    setup = make_setup(config, model, num_gpus, work.row_tokens, on_cpu=accelerator.name == "CPU")
    trained = training(config, model, setup, accelerator, work)
    checkpoints = _checkpoints(config, model, setup, price, trained.step_s)
    preemptions = _preemptions(config, trained, checkpoints, price)
    fit = _fit(config, model, setup, accelerator, work, price)
    return Plan(
        model=config.base,
        parameters=model.num_parameters,
        trained_parameters=memory.trained_parameters(model, setup),
        machines=Machines(num_gpus=num_gpus, accelerator=accelerator.name, price=price),
        memory=fit,
        data=_data(config, work, setup),
        training=trained,
        sizing=_sizing(config, model, setup, accelerator, work),
        checkpoints=checkpoints,
        preemptions=preemptions,
        waiting=_waiting(config, trained, checkpoints, preemptions, price),
        cost=Cost(
            training_usd=_usd(price, num_gpus, trained.hours) if fit.fits else None,
            expected_usd=_usd(price, num_gpus, preemptions.hours) if fit.fits else None,
        ),
    )


def _usd(price: prices.Price | None, num_gpus: int, hours: float | None) -> float | None:
    return None if price is None or hours is None else num_gpus * price.usd_per_gpu_hour * hours


def _sizing(
    config: PlanConfig,
    model: shape.ModelShape,
    setup: memory.Setup,
    accelerator: Accelerator,
    work: workload.Workload,
) -> Sizing | None:
    if accelerator.name == "CPU":
        return None

    def time(num_gpus: int, batch_rows: int) -> Training | None:
        spread = replace(config, global_batch_rows=batch_rows, workers=None)
        there = make_setup(spread, model, num_gpus, work.row_tokens, on_cpu=False)
        if not memory.fits(model, there, accelerator):
            return None
        return training(spread, model, there, accelerator, work)

    rows_a_rank = setup.accumulation * setup.micro_batch_rows
    return sizing.sizing(time, setup.world_size, config.global_batch_rows, rows_a_rank)


def _workload(config: PlanConfig) -> workload.Workload:
    if config.data:
        work = workload.from_pack(config.data, config.epochs)
        workload.check_rows(config, work.row_tokens)
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
        trained_layers=config.top_layers,
        base_layers=config.top_layers if config.keep_base else 0,
        on_cpu=on_cpu,
    )


def _may_be_fp32(precision: str, on_cpu: bool) -> bool:
    """A CPU that is planned for may be one that `auto` does not use for bf16."""
    return precision == "fp32" or (precision == "auto" and on_cpu)


def adapter_parameters(config: RunConfig, model: shape.ModelShape) -> int:
    """Trainable parameters of the LoRA adapter: rank x (inputs + outputs) of each target.

    With top_layers, those of so many layers.
    """
    sizes = model.linear_sizes()
    targets = set(config.lora.targets or sizes)
    unknown = sorted(targets - sizes.keys())
    if unknown:
        raise ConfigError(f"lora.targets has {unknown}; a layer of it has {', '.join(sizes)}")
    per_layer = sum(sum(sizes[name]) for name in targets)
    return config.lora.rank * per_layer * (config.top_layers or model.num_layers)


def _fit(
    config: PlanConfig,
    model: shape.ModelShape,
    setup: memory.Setup,
    accelerator: Accelerator,
    work: workload.Workload,
    price: prices.Price | None,
) -> Fit:
    parts = memory.estimate(model, setup)
    fits = parts.device <= accelerator.memory_bytes
    lora = adapter_parameters(config, model)
    fitting = [] if fits else memory.remedies(model, setup, accelerator, lora)

    def remedy(other: memory.Setup) -> Remedy:
        hours = training(config, model, other, accelerator, work).hours
        usd = _usd(price, setup.world_size, hours)
        return Remedy(switches=memory.changes(setup, other), hours=hours, usd=usd)

    return Fit(
        parts=parts,
        total_bytes=parts.device,
        available_bytes=accelerator.memory_bytes,
        fits=fits,
        remedies=tuple(remedy(other) for other in fitting),
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


def _checkpoints(
    config: PlanConfig,
    model: shape.ModelShape,
    setup: memory.Setup,
    price: prices.Price | None,
    step_s: float,
) -> Checkpoints:
    trained = memory.trained_parameters(model, setup)
    size = memory.checkpoint_bytes(trained, setup.optimizer_state)
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


def _mtbf_h(config: PlanConfig, price: prices.Price | None) -> float:
    """Without a price, as if the machines could be taken away."""
    taken = price is None or price.preemptible
    return config.checkpoint.mtbf_h if taken else ON_DEMAND_MTBF_H


def _preemptions(
    config: PlanConfig, trained: Training, checkpoints: Checkpoints, price: prices.Price | None
) -> Preemptions:
    mtbf_h = _mtbf_h(config, price)
    read_s = checkpoints.size_bytes / (config.storage_gb_per_s * 1e9)
    restart_s = config.restart_minutes * 60 + read_s
    lost = cadence.lost_work(
        checkpoints.interval_s, checkpoints.flush_s, trained.step_s, config.notice_s
    )
    wall_s = cadence.wall_clock_s(
        trained.hours * 3600,
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


def _waiting(
    config: PlanConfig,
    trained: Training,
    checkpoints: Checkpoints,
    preemptions: Preemptions,
    price: prices.Price | None,
) -> Waiting | None:
    """For machines that may be taken away, where traces say when there are any."""
    if not config.trace:
        return None
    if price is not None and not price.preemptible:
        raise ConfigError(
            f"--trace says when there are spot machines, and --price {price.name} is for those "
            "that stay; leave one of them out."
        )
    job = job_of(trained, checkpoints, preemptions, deadline_s=None)
    return waiting(job, config.trace, trained.network.num_machines)


def presets() -> dict[str, Callable[[], PlanConfig]]:
    """The presets of `run`, each with the model it is meant for."""
    return {name: partial(_preset, name) for name in PRESETS}


def _preset(name: str) -> PlanConfig:
    recipe = PRESETS[name]()
    settings = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    machines = {"gpus": MACHINES[name]} if name in MACHINES else {}
    return PlanConfig(**{**settings, **machines, "base": BASES.get(name, name)})
