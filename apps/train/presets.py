"""Recipes as plain functions. `base`, `data` and `out` come from the command line.

The Vicuna recipes keep the published hyperparameters (2e-5 cosine, 3 % warm-up, no weight decay,
three epochs, 128 conversations a step) with the batch counted in packed rows: 128 conversations of
1,550 tokens on average fill 96 rows of 2,048. They run on any number of GPUs: the batch stays.
"""

from typing import Any

from apps.train.config import (
    CheckpointConfig,
    MetricsConfig,
    OptimConfig,
    RopeConfig,
    RunConfig,
)

_FROM_COMMAND_LINE: dict[str, Any] = {"base": "", "data": "", "out": ""}
_VICUNA_OPTIM = OptimConfig(lr=2e-5, schedule="cosine", warmup_fraction=0.03, weight_decay=0.0)


def vicuna_7b() -> RunConfig:
    """LLaMA-7B, 2,048 tokens; meant for 8 GPUs of 80 GB."""
    return RunConfig(
        **_FROM_COMMAND_LINE,
        max_length=2048,
        epochs=3.0,
        global_batch_rows=96,
        micro_batch_rows=4,
        optim=_VICUNA_OPTIM,
        metrics=MetricsConfig(val_every_steps=100, tensorboard=True),
    )


def vicuna_13b() -> RunConfig:
    """LLaMA-13B, 2,048 tokens; meant for 8 GPUs of 80 GB."""
    return RunConfig(
        **_FROM_COMMAND_LINE,
        max_length=2048,
        epochs=3.0,
        global_batch_rows=96,
        micro_batch_rows=2,
        optim=_VICUNA_OPTIM,
        metrics=MetricsConfig(val_every_steps=100, tensorboard=True),
    )


def vicuna_7b_16k() -> RunConfig:
    """A LLaMA-7B of 4,096 positions extended to 16,384 by linear RoPE scaling; 8 GPUs of 80 GB."""
    return RunConfig(
        **_FROM_COMMAND_LINE,
        max_length=16_384,
        epochs=3.0,
        global_batch_rows=16,
        micro_batch_rows=1,
        activation_checkpointing="selective",
        rope=RopeConfig(kind="linear", factor=4.0),
        optim=_VICUNA_OPTIM,
        metrics=MetricsConfig(val_every_steps=100, tensorboard=True),
    )


def llama_3_8b() -> RunConfig:
    """Llama-3-8B, 4,096 tokens; meant for 8 GPUs of 80 GB."""
    return RunConfig(
        **_FROM_COMMAND_LINE,
        max_length=4096,
        epochs=3.0,
        global_batch_rows=48,
        micro_batch_rows=1,
        optim=_VICUNA_OPTIM,
        metrics=MetricsConfig(val_every_steps=100, tensorboard=True),
    )


def debug() -> RunConfig:
    """A model of a few million parameters on two CPU cores: the demo and the tests."""
    return RunConfig(
        **_FROM_COMMAND_LINE,
        max_length=256,
        epochs=1.0,
        global_batch_rows=4,
        micro_batch_rows=2,
        workers=2,
        device="cpu",
        precision="auto",
        wrap="root",
        deterministic=True,
        optim=OptimConfig(
            lr=2e-3, beta2=0.95, schedule="linear", warmup_fraction=0.05, final_fraction=0.02
        ),
        checkpoint=CheckpointConfig(interval_s=20.0),
        metrics=MetricsConfig(val_rows=16),
    )


PRESETS = {
    "vicuna-7b": vicuna_7b,
    "vicuna-13b": vicuna_13b,
    "vicuna-7b-16k": vicuna_7b_16k,
    "llama-3-8b": llama_3_8b,
    "debug": debug,
}
