"""The plan's memory against what the allocator really gave out: a plan that fits, fits.

The figures are bytes of tensors, counted by torch's own allocator while the real FSDP2 strategy
takes two steps on one CPU rank.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from apps.train.batches.micro_batch import ArrayRows, micro_batch
from apps.train.loop.worker import choose_trained, process_group
from apps.train.model import load, shape
from apps.train.parallel.strategy import FsdpStrategy
from apps.train.plan import make_setup
from apps.train.planning import memory
from apps.train.presets import debug
from tests.train.allocator import peak_bytes
from tests.train.ranks import on_ranks, train

ROW_TOKENS = 128
WIDE = {
    "hidden_size": 320,
    "intermediate_size": 1024,
    "num_attention_heads": 5,
    "num_hidden_layers": 2,
    "vocab_size": 2100,
    "tie_word_embeddings": True,
}
DEEP = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_hidden_layers": 4,
    "vocab_size": 1000,
    "tie_word_embeddings": False,
}
CASES = [
    (WIDE, {"micro_batch_rows": 2, "global_batch_rows": 2}),
    (
        DEEP,
        {
            "wrap": "layer",
            "micro_batch_rows": 8,
            "global_batch_rows": 16,
            "precision": "fp32",
            "activation_checkpointing": "full",
        },
    ),
    (
        DEEP,
        {
            "wrap": "layer",
            "reshard": "step",
            "micro_batch_rows": 2,
            "global_batch_rows": 8,
            "activation_checkpointing": "full",
        },
    ),
    (
        DEEP,
        {
            "wrap": "layer",
            "micro_batch_rows": 8,
            "global_batch_rows": 8,
            "precision": "fp32",
            "top_layers": 4,
            "keep_base": 1.0,
        },
    ),
]
DEEPER = {**DEEP, "num_hidden_layers": 8}
_PARTIAL = {"wrap": "layer", "micro_batch_rows": 8, "global_batch_rows": 8, "precision": "fp32"}
CASES += [
    (DEEPER, {**_PARTIAL, "top_layers": 2}),
    (DEEPER, {**_PARTIAL, "top_layers": 3, "adapter": "lora"}),
]
SLOW_CASES = [
    (DEEPER, {**_PARTIAL, "top_layers": 3, "global_batch_rows": 16}),
    (DEEPER, {**_PARTIAL, "top_layers": 3, "activation_checkpointing": "full"}),
    (DEEPER, {**_PARTIAL, "top_layers": 3, "keep_base": 1.0}),
    (DEEPER, {**_PARTIAL, "top_layers": 3, "reshard": "step", "global_batch_rows": 16}),
    *[
        (
            DEEPER,
            {
                "wrap": "layer",
                "micro_batch_rows": 8,
                "global_batch_rows": 8,
                "precision": "fp32",
                "adapter": "lora",
                "activation_checkpointing": checkpointing,
            },
        )
        for checkpointing in ("none", "elementwise", "selective", "full")
    ],
    (DEEP, {"wrap": "layer", "reshard": "step", "micro_batch_rows": 2, "global_batch_rows": 2}),
    (DEEP, {"wrap": "layer", "micro_batch_rows": 8, "global_batch_rows": 16}),
    (WIDE, {"micro_batch_rows": 2, "global_batch_rows": 4}),
    (WIDE, {"micro_batch_rows": 8, "global_batch_rows": 8, "precision": "fp32"}),
    *[
        (
            DEEP,
            {
                "wrap": "layer",
                "micro_batch_rows": rows,
                "global_batch_rows": 8,
                "precision": precision,
                "activation_checkpointing": checkpointing,
            },
        )
        for rows in (1, 8)
        for precision in ("bf16", "fp32")
        for checkpointing in ("none", "elementwise", "selective", "full")
    ],
]


@pytest.mark.parametrize(("sizes", "settings"), CASES)
def test_estimate_covers_what_the_allocator_gave_out(sizes, settings, tmp_path):
    _check(sizes, settings, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "settings"), SLOW_CASES)
def test_estimate_covers_every_switch(sizes, settings, tmp_path):
    _check(sizes, settings, tmp_path)


def _check(sizes: dict, settings: dict, folder: Path) -> None:
    config = debug().__class__(
        **{**{"base": str(folder), "data": "", "out": ""}, **settings, "device": "cpu"}
    )
    if config.keep_base:
        LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(folder)
    measured = peak_bytes(lambda: _two_steps(sizes, config))
    read = shape.from_config(LlamaConfig(**sizes).to_dict())
    setup = make_setup(config, read, 1, ROW_TOKENS, on_cpu=True)
    parts = memory.estimate(read, setup)
    estimated = parts.device - parts.runtime
    assert measured <= estimated <= 1.5 * measured, f"{measured=:,} {estimated=:,.0f}"


def _two_steps(sizes: dict, config) -> None:
    torch.manual_seed(0)
    with process_group():
        causal_lm = load.build_on_meta(LlamaConfig(**sizes))
        choose_trained(causal_lm, config)
        strategy = FsdpStrategy(config, causal_lm, torch.device("cpu"))
        load.fill_randomly(causal_lm, seed=0)
        if config.keep_base:
            strategy.keep_base(config.base)
        rows = config.micro_batch_rows
        ids = np.random.default_rng(0).integers(0, sizes["vocab_size"], (rows, ROW_TOKENS))
        packed = ArrayRows(
            ids=ids, loss_mask=np.ones_like(ids, bool), lengths=[[ROW_TOKENS]] * rows
        )
        num_micro = config.global_batch_rows // rows
        for _ in range(2):
            for index in range(num_micro):
                batch = micro_batch(packed, np.arange(rows), strategy.device)
                loss = strategy.loss(batch, 1e-3)
                strategy.backward(loss, is_last=index == num_micro - 1)
            strategy.update(1e-4)


# torch.compile's tracer looks at gradients.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_activations_of_a_layer_are_what_autograd_saves():
    for kv_heads, dtype in ((8, torch.bfloat16), (4, torch.bfloat16), (8, torch.float32)):
        sizes = {**DEEP, "num_key_value_heads": kv_heads}
        read = shape.from_config(LlamaConfig(**sizes).to_dict())
        for compiled in (False, True):
            one, three = (
                _saved_bytes({**sizes, "num_hidden_layers": n}, dtype, compiled) for n in (1, 3)
            )
            expected = memory.layer_activation_bytes(read, dtype.itemsize, compiled=compiled)
            assert (three - one) / 2 == expected


def _saved_bytes(sizes: dict, dtype: torch.dtype, compiled: bool) -> float:
    """Bytes per token that the backward pass of transformers' LLaMA keeps, weights aside."""
    llama = LlamaForCausalLM(LlamaConfig(**sizes, attn_implementation="sdpa")).to(dtype)
    torch._dynamo.reset()
    if compiled:  # what is kept is decided before code is generated
        for layer in load.decoder_layers(llama):
            layer.compile(backend="aot_eager_decomp_partition")
    weights = {p.untyped_storage().data_ptr() for p in llama.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and storage.nbytes():
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    ids_BT = torch.zeros((2, ROW_TOKENS), dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = llama.model(ids_BT)
    del output
    return sum(size for size, _ in kept.values()) / ids_BT.numel()


def test_a_rank_that_trains_stays_within_its_plan(small_run):
    """Resident memory of the whole process, checkpoints included, as metrics.jsonl has it."""
    config = replace(small_run, steps=4)
    records = on_ranks(1, train, config)[0]
    sizes = json.loads((Path(config.base) / "config.json").read_text())
    read = shape.from_config(sizes)
    setup = make_setup(config, read, 1, ROW_TOKENS, on_cpu=True)
    planned_gb = memory.estimate(read, setup).device / 1e9
    assert max(r["memory_gb"] for r in records) <= planned_gb


def test_remedies_fit_and_the_mildest_comes_first():
    read = shape.KNOWN["llama-13b"]
    small = memory.Accelerator(name="small", memory_bytes=40_000_000_000, peak_flops=None)
    setup = memory.Setup(world_size=8, micro_batch_rows=2, accumulation=6)
    found = memory.remedies(read, setup, small, adapter_parameters=60_000_000)
    assert found and all(memory.fits(read, other, small) for other in found)
    assert memory.changes(setup, found[0]).keys() <= {
        "micro_batch_rows",
        "activation_checkpointing",
        "optimizer_state",
    }


def test_what_is_held_for_a_whole_step_is_the_first_to_go():
    read = shape.KNOWN["llama-7b"]
    setup = memory.Setup(world_size=8, accumulation=4, reshard="step")
    layered = replace(setup, reshard="layer")
    between = memory.estimate(read, setup).device - 1
    assert memory.estimate(read, layered).device < between
    small = memory.Accelerator(name="small", memory_bytes=int(between), peak_flops=None)
    found = memory.remedies(read, setup, small, adapter_parameters=60_000_000)
    assert {"reshard": "layer"} in [memory.changes(setup, other) for other in found]


def test_what_fits_needs_no_switch_and_more_ranks_need_less():
    read = shape.KNOWN["llama-7b"]
    totals = [memory.estimate(read, memory.Setup(world_size=n)).device for n in (1, 2, 8)]
    assert totals[0] > totals[1] > totals[2]


def test_offload_moves_the_state_to_the_host():
    read = shape.KNOWN["llama-7b"]
    kept = memory.estimate(read, memory.Setup(world_size=8, accumulation=2))
    moved = memory.estimate(read, memory.Setup(world_size=8, accumulation=2, cpu_offload=True))
    assert moved.device < kept.device
    state = kept.weights + kept.gradients + kept.optimizer
    assert moved.host - kept.host == pytest.approx(state)
    assert kept.host == pytest.approx(kept.weights + kept.optimizer)
