"""Recipes as plain functions. `base`, `data` and `out` come from the command line.

The Vicuna recipes keep the published hyperparameters (2e-5 cosine, 3 % warm-up, no weight decay,
three epochs, 128 conversations a step) with the batch counted in packed rows: 128 conversations of
1,550 tokens on average fill 96 rows of 2,048. They run on any number of GPUs: the batch stays.
"""

from dataclasses import replace

from apps.train.config import (
    CheckpointConfig,
    MetricsConfig,
    OptimConfig,
    RopeConfig,
    RunConfig,
)


def _vicuna(max_length: int, global_rows: int, micro_rows: int) -> RunConfig:
    """The published recipe for rows of a length."""
    return RunConfig(
        base="",
        data="",
        out="",
        max_length=max_length,
        epochs=3.0,
        global_batch_rows=global_rows,
        micro_batch_rows=micro_rows,
        optim=OptimConfig(lr=2e-5, schedule="cosine", warmup_fraction=0.03, weight_decay=0.0),
        metrics=MetricsConfig(val_every_steps=100),
        log=("tensorboard",),
    )


def vicuna_7b() -> RunConfig:
    """LLaMA-7B, 2,048 tokens; meant for 8 GPUs of 80 GB."""
    return _vicuna(2048, global_rows=96, micro_rows=4)


def vicuna_13b() -> RunConfig:
    """LLaMA-13B, 2,048 tokens; meant for 8 GPUs of 80 GB."""
    return _vicuna(2048, global_rows=96, micro_rows=2)


def vicuna_7b_16k() -> RunConfig:
    """A LLaMA-7B of 4,096 positions extended to 16,384 by linear RoPE scaling; 8 GPUs of 80 GB."""
    return replace(
        _vicuna(16_384, global_rows=16, micro_rows=1),
        activation_checkpointing="selective",
        rope=RopeConfig(kind="linear", factor=4.0),
    )


def llama_3_8b() -> RunConfig:
    """Llama-3-8B, 4,096 tokens; meant for 8 GPUs of 80 GB."""
    return _vicuna(4096, global_rows=48, micro_rows=1)


def debug() -> RunConfig:
    """A model of a few million parameters on two CPU cores: the demo and the tests."""
    return RunConfig(
        base="",
        data="",
        out="",
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
