"""The published recipe by its public commands, on a model of a few thousand parameters."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from apps.common.command.cli import run
from apps.common.files import config as configs
from apps.train.__main__ import COMMANDS
from apps.train.config import RunConfig
from apps.train.presets import vicuna_7b
from tests.made import sentencepiece_folder
from tests.train.conftest import save_model, save_pack


def command(*argv: object) -> int:
    return run("apps.train", COMMANDS, [str(part) for part in argv])


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own, while it starts workers
def test_vicuna_7b_runs_from_base_to_a_chat(ray_session, tmp_path, capsys, monkeypatch) -> None:
    """Nothing of the preset is changed but the number of steps; the model is narrow and shallow."""
    for name, value in ray_session.child_env().items():
        monkeypatch.setenv(name, value)
    base, pack, out = tmp_path / "base", tmp_path / "pack", tmp_path / "runs/vicuna"
    sentencepiece_folder(base)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 2048}
    save_model(base, **sizes, **heads)
    save_pack(pack, base, num_rows=7, row_tokens=2048, template="vicuna-v1.1")
    places = ("--base", base, "--data", pack, "--out", out)
    assert command("run", "--preset", "vicuna-7b", *places, "--steps", 2) == 0
    settings = configs.load(RunConfig, str(out / "config.yaml"))
    where = {"base": settings.base, "data": settings.data, "out": settings.out}
    assert settings == replace(vicuna_7b(), steps=2, **where)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [1, 2]
    assert records[-1]["tokens"] > 2 * 90 * 2000  # two batches of 96 well filled rows
    assert command("export", out, "--out", tmp_path / "model") == 0
    assert "train.done" in capsys.readouterr().out
    assert len(chat(tmp_path / "model")) > 0


def chat(folder: Path) -> list[int]:
    """Ids that the exported model answers with."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Who are you? Grüße 你好"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    prompt.pop("token_type_ids", None)
    assert "你好" in tokenizer.decode(prompt["input_ids"][0])  # through byte fallback
    answer = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    return answer[0][prompt["input_ids"].shape[1] :].tolist()
