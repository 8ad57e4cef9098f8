"""DeepSpeed ZeRO-3 trains, resumes and exports what FSDP2 does. Two gloo ranks on the CPU."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("deepspeed")

from apps.common.command.events import Reporter
from apps.common.files import config as configs
from apps.common.packs import open_pack
from apps.train.batches.micro_batch import PackRows, micro_batch
from apps.train.checkpoint import checkpoint
from apps.train.config import ExportConfig
from apps.train.export import read_weights, run_export
from apps.train.loop.record import read_metrics
from apps.train.loop.worker import make_strategy
from tests.train.conftest import save_model
from tests.train.ranks import on_ranks, train

pytestmark = pytest.mark.slow


def curve(config) -> list[tuple[float, float]]:
    return [(r["loss"], r["grad_norm"]) for r in read_metrics(config.out)]


def weights(config) -> dict[str, torch.Tensor]:
    found = checkpoint.newest(config.out, "digest", pytest.fail)
    return read_weights(found)


@pytest.fixture(scope="module")
def runs(small_base, small_pack, tmp_path_factory):
    """The same run with either strategy."""
    from tests.train.conftest import small_config

    folder = tmp_path_factory.mktemp("runs")
    fsdp = small_config(small_base, small_pack, folder / "fsdp")
    zero = replace(fsdp, strategy="deepspeed", out=str(folder / "deepspeed"))
    on_ranks(2, train, fsdp)
    on_ranks(2, train, zero)
    return fsdp, zero


def test_losses_and_gradient_norms_equal_fsdps(runs):
    fsdp, zero = map(curve, runs)
    assert len(fsdp) == len(zero) == runs[0].steps
    for theirs, ours in zip(fsdp, zero, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_final_weights_equal_fsdps(runs):
    fsdp, zero = map(weights, runs)
    assert fsdp.keys() == zero.keys()
    for name, weight in fsdp.items():
        flat = zero[name]
        torch.testing.assert_close(flat.view(weight.shape), weight, rtol=1e-3, atol=1e-4)


def test_resume_is_bit_identical(runs, tmp_path):
    _, zero = runs
    cut = replace(zero, out=str(tmp_path / "cut"))
    on_ranks(2, train, cut, 5)
    records = on_ranks(2, train, cut)[0]
    assert records[0]["step"] in (3, 5)  # the checkpoint of step 4 was being written, or done
    assert curve(cut) == curve(zero)
    assert all(torch.equal(w, weights(zero)[name]) for name, w in weights(cut).items())


def test_state_in_host_memory_trains_and_resumes_alike(runs, tmp_path):
    _, zero = runs
    offloaded = replace(zero, out=str(tmp_path / "offloaded"), cpu_offload=True)
    on_ranks(2, train, offloaded, 5)
    on_ranks(2, train, offloaded)
    for theirs, ours in zip(curve(zero), curve(offloaded), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_what_a_killed_compiler_left_stops_no_start(runs, tmp_path):
    """torch's lock on the folder of an extension outlives the process that held it."""
    for name in ("deepspeed_shm_comm", "py311_cpu/deepspeed_shm_comm"):
        (tmp_path / "extensions" / name).mkdir(parents=True)
        (tmp_path / "extensions" / name / "lock").touch()
    extensions = {"TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions")}
    zero = replace(runs[1], out=str(tmp_path / "run"), steps=1)
    assert len(on_ranks(2, train, zero, None, extensions)[0]) == 1


def passes(config) -> tuple[int, float]:
    """How often a step computes the first layer's MLP, and the loss."""
    pack = open_pack(config.data)
    rows = PackRows(pack.split("train"), pack.info.pad_id)
    strategy = make_strategy(config, torch.device("cpu"), rows.row_tokens)
    counted: list[int] = []
    mlp = strategy.causal_lm.model.layers[0].mlp
    mlp.register_forward_pre_hook(lambda *_: counted.append(1))
    loss = strategy.loss(micro_batch(rows, np.array([0]), torch.device("cpu")), 1.0)
    strategy.backward(loss, is_last=True)
    strategy.update(1e-3)
    return len(counted), float(loss.detach())


@pytest.mark.parametrize("kept", ["selective", "full"])
def test_layers_are_recomputed_where_asked_to(runs, kept):
    zero = runs[1]
    (once, loss), _ = on_ranks(2, passes, zero)
    (twice, same), _ = on_ranks(2, passes, replace(zero, activation_checkpointing=kept))
    assert (once, twice) == (1, 2)
    assert same == pytest.approx(loss, rel=1e-6)


def test_a_model_whose_output_layer_is_its_embedding_trains_as_under_fsdp(
    runs, small_base, tmp_path
):
    base = tmp_path / "base"
    shutil.copytree(small_base, base)
    save_model(base, tie_word_embeddings=True)
    for config in runs:
        tied = replace(config, base=str(base), steps=3, out=str(tmp_path / config.strategy))
        on_ranks(2, train, tied)
    fsdp, zero = (curve(replace(runs[0], out=str(tmp_path / n))) for n in ("fsdp", "deepspeed"))
    assert len(fsdp) == 3
    for theirs, ours in zip(fsdp, zero, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_export_is_the_model_that_fsdp_exports(runs, tmp_path):
    from transformers import AutoModelForCausalLM

    ids = torch.arange(3, 40)[None]
    logits = []
    for config in runs:
        configs.write_resolved(config, config.out)
        out = str(tmp_path / config.strategy)
        run_export(ExportConfig(run=config.out, out=out, dtype="fp32"), Reporter("json"))
        with torch.no_grad():
            logits.append(AutoModelForCausalLM.from_pretrained(out)(ids).logits)
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-3, atol=1e-3)


def test_weight_decay_is_for_matrices_here_too(runs, tmp_path):
    decayed = []
    for config in runs:
        optim = replace(config.optim, weight_decay=0.5, lr=1e-2)
        run = replace(config, optim=optim, steps=3, out=str(tmp_path / config.strategy))
        on_ranks(2, train, run)
        decayed.append(weights(run))
    fsdp, zero = decayed
    for name, weight in fsdp.items():
        torch.testing.assert_close(zero[name].view(weight.shape), weight, rtol=1e-3, atol=1e-4)
