"""The debug preset's loss curve, held to 1e-4 on every machine.

    python -m tests.train.loop.test_golden        # when the mathematics is meant to change

Writes golden/debug.json. One rank, fp32 (bf16 products round differently from CPU to CPU).
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig

from apps.train.batches.micro_batch import ArrayRows
from apps.train.loop import worker
from apps.train.loop.loop import Hooks, Loop
from apps.train.model import load
from apps.train.presets import debug

GOLDEN = Path(__file__).parent / "golden" / "debug.json"
STEPS = 12
VOCAB = 512


def base(folder: Path) -> str:
    """A LLaMA of the demo's width whose weights numpy drew, which is the same everywhere."""
    config = LlamaConfig(
        hidden_size=320,
        intermediate_size=1024,
        num_hidden_layers=2,
        num_attention_heads=5,
        vocab_size=VOCAB,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    config.save_pretrained(folder)
    rng = np.random.Generator(np.random.PCG64(0))
    weights = {}
    for name, parameter in load.build_on_meta(config).named_parameters():
        shape = tuple(parameter.shape)
        drawn = rng.standard_normal(shape) * 0.02 if len(shape) > 1 else np.ones(shape)
        weights[name] = torch.from_numpy(drawn.astype(np.float32))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def rows() -> ArrayRows:
    """Twenty rows of counting sequences, which a model can learn, several a row."""
    rng = np.random.Generator(np.random.PCG64(1))
    ids, mask = np.zeros((20, 256), np.int64), np.zeros((20, 256), bool)
    lengths = []
    for row in range(20):
        sizes = rng.integers(20, 80, 3).tolist()
        lengths.append(sizes)
        at = 0
        for size in sizes:
            start, stride = rng.integers(3, VOCAB), rng.integers(1, 4)
            ids[row, at : at + size] = 3 + (start + stride * np.arange(size)) % (VOCAB - 3)
            mask[row, at + size // 3 : at + size] = True
            at += size
    return ArrayRows(ids=ids, loss_mask=mask, lengths=lengths)


def curve(folder: Path) -> list[float]:
    """Losses of the debug preset."""
    config = replace(debug(), base=base(folder), steps=STEPS, workers=1, precision="fp32")
    losses: list[float] = []
    data = rows()
    with worker.process_group():
        worker.configure_torch(config)
        strategy = worker.make_strategy(config, torch.device("cpu"), data.row_tokens)
        Loop(
            config=config,
            order=worker.run_order(config, len(data)),
            train_rows=data,
            val_rows=None,
            strategy=strategy,
            meter=worker.make_meter(config, strategy, data.row_tokens),
            hooks=Hooks(on_step=lambda record: losses.append(record["loss"])),
        ).run()
    return losses


@pytest.fixture
def default_numerics():
    """What the preset's `deterministic` sets for the process is set back."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")


def test_the_debug_presets_loss_curve_is_golden(tmp_path, default_numerics):
    golden = json.loads(GOLDEN.read_text())["losses"]
    assert curve(tmp_path) == pytest.approx(golden, abs=1e-4)
    assert golden[-1] < golden[0] - 0.1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        found = {"preset": "debug, fp32, one rank", "losses": curve(Path(scratch))}
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    print(GOLDEN.read_text())
