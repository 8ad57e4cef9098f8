"""How fast a run will go: from a stated or published MFU, or from an earlier run's metrics."""

import statistics
from dataclasses import dataclass

from apps.common.errors import ConfigError, InputError
from apps.common.files import config as configs
from apps.common.files import storage
from apps.train.batches.order import split
from apps.train.config import RunConfig
from apps.train.loop.record import read_metrics
from apps.train.model import flops, hardware
from apps.train.model.hardware import Accelerator
from apps.train.model.shape import ModelShape
from apps.train.planning.memory import Setup

RECOMPUTE_SHARE = {"none": 1.0, "elementwise": 1.0, "selective": 0.88, "full": 0.79}
"""Speed that remains with activation checkpointing. elementwise: measured, 7B on one H200, where
with torch.compile nothing was lost; selective: torchtitan, 13B on A100 (61.1 % MFU -> 53.8 %);
full: torchtune (-21 %)."""

ASSUMED_MFU = 0.4
"""Without recomputation, for cards of which nobody published one: llm-foundry's on H100."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Speed of one device."""

    slots_per_s: float
    """Token slots a second, padding included: what MFU is counted on."""
    mfu: float | None
    """Model FLOPs utilisation, 6N + 12 L d s (LoRA: flops.py); None without a stated peak."""
    source: str
    """Where the figure comes from."""


def from_mfu(shape: ModelShape, setup: Setup, accelerator: Accelerator, mfu: float) -> Speed:
    """Speed at a stated utilisation, which counts attention over the whole row (metrics.jsonl)."""
    if accelerator.peak_flops is None:
        raise ConfigError(
            f"{accelerator.name} has no peak to take a share of; give --measured RUN, the "
            "--out of an earlier run, or --tokens-per-s"
        )
    if not 0 < mfu < 1:
        raise ConfigError(f"--mfu is {mfu}; expected a share between 0 and 1")
    rate = mfu * accelerator.peak_flops / _flops_per_token(shape, setup, setup.row_tokens)
    return from_rate(shape, setup, accelerator, rate, "stated with --mfu")


def published(
    shape: ModelShape, setup: Setup, accelerator: Accelerator, attended_tokens: float
) -> Speed:
    """Speed at the published utilisation of the accelerator, for this recomputation.

    Published figures are of rows of 2,048 full of one text. Longer rows hold several conversations,
    and attention is computed, and counted here, over `attended_tokens` of them.
    """
    per_token = _flops_per_token(shape, setup, attended_tokens)
    rate, source = _sustained(shape, setup, accelerator)
    if attended_tokens < setup.row_tokens:
        source += f"; attention over {attended_tokens:,.0f} tokens, the conversations'"
    return from_rate(shape, setup, accelerator, rate / per_token, source)


def _flops_per_token(shape: ModelShape, setup: Setup, attended_tokens: float) -> float:
    return flops.nominal_flops_per_token(
        shape, attended_tokens, setup.adapter_parameters, setup.trained_layers
    )


def _sustained(shape: ModelShape, setup: Setup, accelerator: Accelerator) -> tuple[float, str]:
    """FLOP/s of one device, and where the figure comes from."""
    if accelerator.peak_flops is None:
        return hardware.CPU_FLOPS, hardware.CPU_SOURCE
    if accelerator.mfu is None:
        assumed = f"assumed: nothing is published for {accelerator.name}; give --mfu or --measured"
        return ASSUMED_MFU * _recompute_share(shape, setup) * accelerator.peak_flops, assumed
    ours, theirs = setup.activation_checkpointing, accelerator.mfu_checkpointing
    share = _recompute_share(shape, setup) / RECOMPUTE_SHARE[theirs]
    source = accelerator.mfu_source
    if share != 1.0:
        under = " under LoRA" if setup.adapter_parameters else ""
        under += f" of {setup.trained_layers} layers" if setup.trained_layers else ""
        source += f", x {share:.2f} for {ours} recomputation{under} where it had {theirs}"
    return accelerator.mfu * share * accelerator.peak_flops, source


def _recompute_share(shape: ModelShape, setup: Setup) -> float:
    """RECOMPUTE_SHARE was measured with all weights trained; LoRA has less to share it with.

    Layers without a backward pass are not recomputed.
    """
    share = RECOMPUTE_SHARE[setup.activation_checkpointing]
    if not setup.is_partial:
        return share
    whole = flops.weight_flops_per_token(shape)
    again = whole * (setup.trained_layers or shape.num_layers) / shape.num_layers
    ours = flops.weight_flops_per_token(shape, setup.adapter_parameters, setup.trained_layers)
    return 1 / (1 + (1 / share - 1) * again / ours)


def from_rate(
    shape: ModelShape, setup: Setup, accelerator: Accelerator, slots_per_s: float, source: str
) -> Speed:
    """Speed that somebody measured, in token slots a second on one device."""
    per_token = _flops_per_token(shape, setup, setup.row_tokens)
    peak = accelerator.peak_flops
    mfu = None if peak is None else flops.mfu(slots_per_s, per_token, peak)
    return Speed(slots_per_s=slots_per_s, mfu=mfu, source=source)


def measured_rate(run_uri: str) -> float:
    """Token slots a second on one device in an earlier run: median of its second half.

    Worked example: 3 rows a step on 2 ranks, 2 at a time, are 4 slots for rows, one of them empty;
    all were computed.
    """
    records = read_metrics(run_uri)
    settings_uri = storage.join(run_uri, configs.RESOLVED_NAME)
    if not records or not storage.exists(settings_uri):
        raise InputError(
            f"{run_uri} has no metrics.jsonl with its settings beside it; expected the --out of an "
            "earlier `python -m apps.train run`"
        )
    settings = configs.load(RunConfig, settings_uri)
    if settings.max_length is None:
        raise InputError(f"{settings_uri} does not say max_length; expected a run's own settings")
    step_s = statistics.median(r["step_s"] for r in records[len(records) // 2 :])
    ranks = records[-1]["world_size"]
    accumulation, rows = split(settings.global_batch_rows, ranks, settings.micro_batch_rows)
    return accumulation * rows * settings.max_length / step_s


def measured_stall_s(run_uri: str) -> float | None:
    """Seconds that an earlier run stood still for a checkpoint, on average; None had it none."""
    stalls_s = [r["checkpoint_s"] for r in read_metrics(run_uri) if r.get("checkpoint_s")]
    return statistics.mean(stalls_s) if stalls_s else None
