"""The gateway says of a model what its engine does."""

import json
from pathlib import Path

import pytest

from apps.serve.config import ModelConfig, Sampling
from apps.serve.engine.config import TorchConfig
from apps.serve.engine.torch.engine import TorchEngine
from apps.serve.model.served import load_model, mask_factory
from tests.serve.models import write_model


def mistral(folder: Path) -> Path:
    """A model that sees 64 tokens back and has 512 positions."""
    write_model(folder, seed=0)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config | {"sliding_window": 64}))
    return folder


@pytest.mark.parametrize(
    ("options", "tokens"),
    [({}, 64), ({"context_tokens": 999_999}, 64), ({"context_tokens": 32}, 32),
     ({"kv_tokens": 48}, 48)],
)  # fmt: skip
async def test_the_context_is_the_engine_s(tmp_path: Path, options: dict, tokens: int) -> None:
    folder = mistral(tmp_path)
    engine = TorchEngine(TorchConfig(path=str(folder), **options), None)
    await engine.start()
    try:
        assert engine.info.context_tokens == tokens
        model = ModelConfig(name="m", path=str(folder), options=options)
        assert load_model(model).context_tokens == tokens
    finally:
        await engine.close()


def test_an_engine_that_knows_windows_has_every_position(tmp_path: Path) -> None:
    model = ModelConfig(
        name="m", path=str(mistral(tmp_path)), engine="vllm", options={"context_tokens": 999_999}
    )
    assert load_model(model).context_tokens == 512


def test_a_null_end_token_is_no_answer(tmp_path: Path) -> None:
    """generation_config.json may hold null: then config.json's end token counts, for both."""
    write_model(tmp_path, seed=0)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": None}))
    assert load_model(ModelConfig(name="m", path=str(tmp_path))).eos_token_ids >= {1}
    assert mask_factory(str(tmp_path)) is not None


def test_serve_yaml_says_how_a_model_draws_over_its_folder(tmp_path: Path) -> None:
    write_model(tmp_path, seed=0)
    stated = {"eos_token_id": 1, "temperature": 0.6, "top_k": 20}
    (tmp_path / "generation_config.json").write_text(json.dumps(stated))
    model = ModelConfig(name="m", path=str(tmp_path), sampling=Sampling(temperature=0, top_p=0.9))
    assert load_model(model).defaults == {"temperature": 0, "top_k": 20, "top_p": 0.9}
