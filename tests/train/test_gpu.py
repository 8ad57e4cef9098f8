"""What only a GPU can show: flash attention's kernels, compiled layers and updates, NCCL.

Runs without Ray and without the suite's fixtures:
python -m pytest -c /dev/null --noconftest tests/train/test_gpu.py
"""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from apps.train.batches.micro_batch import ArrayRows, micro_batch
from apps.train.checkpoint import checkpoint
from apps.train.config import CheckpointConfig, RunConfig
from apps.train.export import read_weights
from apps.train.loop import worker
from apps.train.loop.loop import Hooks
from apps.train.parallel.strategy import FsdpStrategy
from tests.train.parallel.test_strategy import (
    ROW_TOKENS,
    VOCAB,
    base,
    gradients,
    settings,
    some_rows,
)

__all__ = ["base"]  # a fixture

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
GPU = torch.device("cuda", 0)
WAYS = [
    {"compile": "off"},
    {"compile": "on"},
    {"compile": "on", "activation_checkpointing": "elementwise"},
    {"compile": "on", "activation_checkpointing": "selective"},
    {"compile": "on", "activation_checkpointing": "full", "reshard": "step"},
    {"compile": "on", "cpu_offload": True},
]


def on_gpu(base: str, **changes) -> RunConfig:
    return settings(base, **{"device": "cuda", "precision": "bf16", **changes})


def one_step(config: RunConfig, rows: ArrayRows, micro_rows: int) -> tuple[float, torch.Tensor]:
    """Loss and all gradients of one step, flat, on the host."""
    with worker.process_group("cpu:gloo,cuda:nccl"):
        device = worker.rank_device(config)
        worker.configure_torch(config)
        strategy = worker.make_strategy(config, device, ROW_TOKENS)
        scale = 1 / int(rows.supervised.sum())
        total = 0.0
        for start in range(0, len(rows), micro_rows):
            chosen = np.arange(start, min(start + micro_rows, len(rows)))
            batch = micro_batch(rows, chosen, device, with_mask=config.precision == "fp32")
            loss = strategy.loss(batch, scale)
            strategy.backward(loss, is_last=chosen[-1] == len(rows) - 1)
            total += loss.item()
        found = [g.float().flatten().cpu() for _, g in sorted(gradients(strategy).items())]
    return total, torch.cat(found)


@pytest.fixture(scope="module")
def reference(base) -> tuple[float, torch.Tensor]:
    """On the CPU in fp32, which equals the conversations apart (test_strategy.py)."""
    return one_step(settings(base), some_rows(num_rows=6), 6)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_bf16_gradients_are_near_the_cpus_in_fp32(base, reference, way) -> None:
    loss, found = one_step(on_gpu(base, **way), some_rows(num_rows=6), 2)
    assert loss == pytest.approx(reference[0], rel=2e-2)
    assert (found - reference[1]).norm() < 6e-2 * reference[1].norm()


def test_fp32_gradients_are_the_cpus(base, reference) -> None:
    loss, found = one_step(on_gpu(base, precision="fp32"), some_rows(num_rows=6), 2)
    assert loss == pytest.approx(reference[0], rel=1e-5)
    torch.testing.assert_close(found, reference[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("compiled", ["off", "on"])
def test_a_conversation_does_not_see_its_neighbours(base, compiled) -> None:
    """Loss on the second conversation of each row, before and after the first one is replaced."""
    rng = np.random.default_rng(5)
    ids = rng.integers(3, VOCAB, (2, ROW_TOKENS))
    mask = np.zeros_like(ids, dtype=bool)
    mask[:, 12:20] = True
    other = ids.copy()
    other[:, :10] = rng.integers(3, VOCAB, (2, 10))
    config = on_gpu(base, compile=compiled)
    with worker.process_group("cpu:gloo,cuda:nccl"):
        strategy = worker.make_strategy(config, worker.rank_device(config), ROW_TOKENS)
        apart, as_one = (
            [
                evaluate(strategy, ArrayRows(ids=x, loss_mask=mask, lengths=[lengths] * 2))
                for x in (ids, other)
            ]
            for lengths in ([10, 12], [22])
        )
    assert apart[0] == apart[1]
    assert as_one[0] != as_one[1]


def evaluate(strategy: FsdpStrategy, rows: ArrayRows) -> float:
    return float(strategy.evaluate(micro_batch(rows, np.arange(len(rows)), GPU), 1.0))


class Killed(Exception):
    """The machine is gone."""


@pytest.mark.parametrize("state", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("reshard", ["layer", "step"])
def test_resume_is_bit_identical(base, tmp_path, state, reshard) -> None:
    """Compiled, with flash attention, in deterministic mode; killed between two checkpoints."""
    config = on_gpu(base, compile="on", deterministic=True, reshard=reshard, steps=6)
    config = replace(
        config,
        global_batch_rows=4,
        micro_batch_rows=2,
        optim=replace(config.optim, state=state),
        checkpoint=CheckpointConfig(interval_steps=2),
        out=str(tmp_path / "straight"),
    )
    straight = losses_of(config)
    resumed = replace(config, out=str(tmp_path / "resumed"))
    with pytest.raises(Killed):
        losses_of(resumed, kill_after=5)
    for thread in threading.enumerate():  # it would die with its process
        if thread.name == "checkpoint":
            thread.join()
    again = losses_of(resumed)
    assert again == {step: straight[step] for step in (5, 6)}
    first, second = (read_weights(newest(c)) for c in (config, resumed))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def losses_of(config: RunConfig, kill_after: int = 0) -> dict[int, float]:
    losses: dict[int, float] = {}

    def on_step(record) -> None:
        losses[record["step"]] = record["loss"]
        if record["step"] == kill_after:
            raise Killed

    with worker.process_group("cpu:gloo,cuda:nccl"):
        worker.work(config, some_rows(num_rows=24), hooks=Hooks(on_step=on_step))
    return losses


def newest(config: RunConfig) -> checkpoint.Checkpoint:
    found = checkpoint.newest(config.out, "digest", pytest.fail)
    assert found is not None and found.step == config.steps
    return found
