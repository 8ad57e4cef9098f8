"""The benchmark that measures our engine for `apps.serve place`."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from apps.serve.engine.cpu.llama import CompiledLlama
from apps.serve.engine.llama.model_folder import read_shape
from benchmarks import engine_speed, engine_steps


def tiny(folder: Path, dtype: torch.dtype = torch.float32, is_tied: bool = False) -> str:
    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=160, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=512, eos_token_id=1, bos_token_id=0,
        tie_word_embeddings=is_tied,
    )  # fmt: skip
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    return str(folder)


def held_bytes(model: CompiledLlama) -> int:
    layers = [part for layer in model.layers for part in layer if part is not None]
    parts = [model.embedding, model.norm, model.head, *layers]
    return sum((part if isinstance(part, Tensor) else part.panels).nbytes for part in parts)


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_row_s_memory_is_what_the_engine_takes(
    tmp_path: Path, dtype: torch.dtype, is_tied: bool
) -> None:
    folder = tiny(tmp_path / "model", dtype, is_tied)
    engine_speed._write(str(tmp_path / "speeds.yaml"), "tiny", folder, {})
    row = yaml.safe_load((tmp_path / "speeds.yaml").read_text())["models"]["tiny"]
    held = held_bytes(CompiledLlama(folder, dtype=torch.float32))
    assert row["weights_gb"] * 1e9 == held
    shape = read_shape(folder)
    assert row["kv_bytes_per_token"] == 2 * 4 * shape.num_layers * 64


async def test_a_replay_fits_the_model_s_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its longest prompts are twice as long as that, once divided by eight."""
    rows = [f"2023-11-16 18:25:46.{n}000000,{n * 1000},80" for n in range(1, 10)]
    first = "2023-11-16 18:15:46.0000000,80,80"
    (tmp_path / "azure-llm-2023").mkdir()
    trace = tmp_path / "azure-llm-2023" / "AzureLLMInferenceTrace_conv.csv"
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", first, *rows]))
    monkeypatch.setenv("CRIA_TEST_DATA", str(tmp_path))
    monkeypatch.setattr(engine_steps, "PAUSES_S", (0.01,))
    folder = tiny(tmp_path / "model")
    arguments = Namespace(model=folder, times=[1.0], seconds=2.0, profile_s=0.5, out="")
    assert await engine_speed.measured(arguments, folder, threads=1) is None
    assert "4.50 requests/s" in capsys.readouterr().out
