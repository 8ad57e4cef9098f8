"""The plan as text for a terminal: one block per question a user asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from apps.common.files.config import flag
from apps.train.planning.amounts import count, duration, size

if TYPE_CHECKING:
    from apps.train.planning.result import Plan

GB = 1e9


def lines(plan: Plan) -> Iterator[str]:
    """Lines of the report, in the order: what, memory, data, time, cost, faults."""
    yield from _machines(plan)
    yield from _memory(plan)
    yield from _data(plan)
    if plan.memory.fits:
        yield from _time(plan)
        yield from _waste(plan)
        yield from _faults(plan)
        yield from _cost(plan)


def _row(name: str, text: str) -> str:
    return f"{name:<13}{text}"


def _device(plan: Plan) -> str:
    """What one rank has to itself."""
    return "process" if plan.machines.accelerator == "CPU" else "GPU"


def _machines(plan: Plan) -> Iterator[str]:
    machines, joined = plan.machines, plan.training.network
    trained = ""
    if plan.trained_parameters != plan.parameters:
        trained = f", {plan.trained_parameters / 1e6:,.1f} M of them trained"
    yield _row("model", f"{plan.model}: {count(plan.parameters)} parameters{trained}")
    spread = f" in {joined.num_machines} machines ({joined.name})" if joined.name else ""
    what = f"{machines.num_gpus} x {machines.accelerator}{spread}"
    if machines.price is None:
        yield _row("machines", f"{what}; no price known: give --price USD_PER_GPU_HOUR")
        return
    yield _row(
        "machines",
        f"{what} at ${machines.price.usd_per_gpu_hour:.2f} per {_device(plan)}-hour, "
        f"{machines.price.name} ({machines.price.source})",
    )


def _memory(plan: Plan) -> Iterator[str]:
    fit = plan.memory
    free = fit.available_bytes - fit.total_bytes
    over = f"DOES NOT FIT: {-free / GB:.1f} GB over"
    verdict = f"fits, {free / GB:.1f} GB free" if fit.fits else over
    yield _row(
        "memory",
        f"{fit.total_bytes / GB:.1f} of {fit.available_bytes / GB:.1f} GB per {_device(plan)}: "
        f"{verdict}",
    )
    for part in fields(fit.parts):
        if num_bytes := getattr(fit.parts, part.name):
            name = "on the host" if part.name == "host" else part.name
            yield _row("", f"{name:<17}{size(num_bytes):>9}")
    if fit.fits:
        return
    if not fit.remedies:
        yield _row("", "no switch makes it fit: take more or larger GPUs")
    for number, remedy in enumerate(fit.remedies):
        words = " ".join(_switch(name, value) for name, value in remedy.switches.items())
        usd = "" if remedy.usd is None else f", ${remedy.usd:,.2f}"
        least = "at least " if "cpu_offload" in remedy.switches else ""  # its transfers come on top
        takes = f"{least}{duration(remedy.hours * 3600)}{usd} for training alone"
        yield _row("", f"{'fits with' if number == 0 else 'or with':<11}{words}: {takes}")


def _switch(name: str, value: str) -> str:
    """A switch as it is typed: settings of the optimizer are nested, booleans take no value."""
    option = flag({"optimizer_state": "optim.state"}.get(name, name))
    return option if value == "true" else f"{option} {value}"


def _data(plan: Plan) -> Iterator[str]:
    data = plan.data
    yield _row(
        "data",
        f"{count(data.epoch_tokens)} tokens in {data.epoch_rows:,} rows of {data.row_tokens:,} "
        f"({data.fill:.1%} full), {data.epochs:g} epochs: {count(data.tokens)} tokens "
        f"({data.source})",
    )
    yield _row(
        "steps",
        f"{data.steps:,} of {data.global_batch_rows} rows: {data.accumulation} x "
        f"{data.micro_batch_rows} rows on each of {plan.machines.num_gpus} ranks",
    )


def _time(plan: Plan) -> Iterator[str]:
    training = plan.training
    mfu = "" if training.mfu is None else f" at {training.mfu:.1%} MFU"
    yield _row(
        "time",
        f"{duration(training.hours * 3600)} of training, {training.gpu_hours:,.1f} "
        f"{_device(plan)}-hours{mfu} ({training.source})",
    )
    yield _row(
        "speed",
        f"{training.tokens_per_s_per_gpu:,.0f} real tokens/s per {_device(plan)}, "
        f"{training.step_s:.1f} s per step",
    )


def _waste(plan: Plan) -> Iterator[str]:
    """What does not go into training, and what to change."""
    training, sizing = plan.training, plan.sizing
    if training.exchange_s > 0.1 * training.step_s:
        waits = training.exchange_s >= training.step_s
        yield _row(
            "exchange",
            f"{training.exchange_s:.1f} s a step for weights and gradients, "
            f"{'longer than' if waits else 'hidden behind'} computing; --reshard step and a larger "
            "--micro-batch-rows exchange less",
        )
    if training.host_update_s:
        yield _row(
            "offload",
            f"{training.host_copies_s:.1f} s a step for copies from and to host memory, and "
            f"{training.host_update_s:.1f} s for the update on the CPUs, in which the GPUs wait",
        )
    if training.empty_rows:
        slots = training.empty_rows + plan.data.global_batch_rows
        filled = ""
        if sizing and sizing.whole_batch_rows and sizing.whole_batch_hours is not None:
            hours = duration(sizing.whole_batch_hours * 3600)
            filled = f"; --global-batch-rows {sizing.whole_batch_rows} fills them: {hours}"
        yield _row("empty", f"{training.empty_rows} of {slots} slots for rows a step{filled}")
    if sizing and sizing.most_gpus != plan.machines.num_gpus:
        yield _row(
            "spread",
            f"up to {sizing.most_gpus} GPUs at about the same GPU-hours: "
            f"{duration(sizing.hours * 3600)} of training",
        )


def _faults(plan: Plan) -> Iterator[str]:
    saved, faults = plan.checkpoints, plan.preemptions
    yield _row(
        "checkpoint",
        f"{size(saved.size_bytes)} every {duration(saved.interval_s)}: stands still "
        f"{saved.stall_s:.1f} s, writes {duration(saved.flush_s)} in the background, "
        f"{saved.overhead:.1%} of the time",
    )
    lost = faults.lost_work
    yield _row(
        "lost work",
        f"at most {duration(lost.without_notice_s)} without notice (interval + flush), "
        f"{duration(lost.with_notice_s)} with {faults.notice_s:g} s of notice; "
        f"{duration(lost.expected_s)} expected",
    )
    if faults.hours is None:
        yield _row("preemptions", f"one in {faults.mtbf_h:g} h loses more than it leaves: no end")
        return
    yield _row(
        "preemptions",
        f"{faults.expected:.1f} expected, one in {faults.mtbf_h:g} h, each "
        f"{duration(faults.restart_s)} to restart: {duration(faults.hours * 3600)} until the end",
    )
    if waits := plan.waiting:
        yield _row(
            "waiting",
            f"{_hours(waits.hours_p50)} for spot machines on top (median; p90 "
            f"{_hours(waits.hours_p90)}; {waits.source}), not paid for",
        )
    elif plan.machines.price is None or plan.machines.price.preemptible:
        yield _row("waiting", "for spot machines is not in these hours: --trace DIR shows it")


def _hours(waited: float | None) -> str:
    return "longer than the trace" if waited is None else f"{waited:.1f} h"


def _cost(plan: Plan) -> Iterator[str]:
    cost = plan.cost
    if cost.training_usd is None:
        return
    expected = "no end" if cost.expected_usd is None else f"${cost.expected_usd:,.2f} expected"
    yield _row("cost", f"${cost.training_usd:,.2f} for training alone, {expected} with preemptions")
