"""Where a base model comes from, and that no rank ever holds the whole of it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from apps.common.errors import InputError, NotFoundError
from apps.train.config import RopeConfig, RunConfig
from apps.train.loop import worker
from apps.train.model import load
from apps.train.model.base_folder import fetch_base
from tests.made import byte_level_folder
from tests.train.allocator import peak_bytes
from tests.train.conftest import save_model
from tests.train.hub import serving
from tests.train.ranks import on_ranks

RANKS = 4


@pytest.fixture(scope="module")
def wide_base(tmp_path_factory) -> Path:
    """Large enough that its weights, and not what lies beside them, decide the memory."""
    folder = tmp_path_factory.mktemp("wide")
    byte_level_folder(folder)
    save_model(folder, hidden_size=256, intermediate_size=688, num_hidden_layers=4)
    return folder


def state_peak_bytes(config: RunConfig) -> int:
    """Peak of building, sharding and loading, on this rank."""
    return peak_bytes(lambda: worker.make_strategy(config, torch.device("cpu"), 128))


def test_no_rank_ever_holds_the_whole_model(wide_base, small_run) -> None:
    """A rank holds its share of the weights and of both moments, and nothing else of size."""
    whole = sum(weight.nbytes for weight in load_file(wide_base / "model.safetensors").values())
    mapped = (wide_base / "model.safetensors").stat().st_size  # counted, though only its pages in
    config = replace(small_run, base=str(wide_base), wrap="layer")  # use are in memory
    for peak in on_ranks(RANKS, state_peak_bytes, config):
        assert 3 * whole / RANKS <= peak - mapped < 3 * whole / RANKS * 1.05 < whole


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving(token="right") as served:
        url = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        yield served


def test_a_base_may_be_a_hub_id(hub, small_base) -> None:
    files = {path.name: path.read_bytes() for path in small_base.iterdir()}
    hub.repositories["org/base"] = {**files, "pytorch_model.bin": b"a pickle, never fetched"}
    folder = Path(fetch_base("org/base"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_a_hub_id_with_pickles_only_is_told_how_to_convert(hub, small_base) -> None:
    config = (small_base / "config.json").read_bytes()
    hub.repositories["org/old"] = {"config.json": config, "pytorch_model.bin": b"a pickle"}
    with pytest.raises(NotFoundError, match=r"M, AutoTokenizer as T; .*'org/old'"):
        fetch_base("org/old")


def test_the_conversion_that_a_pickle_is_refused_with_works(
    small_base, tmp_path, monkeypatch
) -> None:
    old = tmp_path / "old"
    shutil.copytree(small_base, old)
    weights = load_file(old / "model.safetensors")
    torch.save(weights, old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    with pytest.raises(InputError) as refused:
        fetch_base(str(old))
    monkeypatch.chdir(tmp_path)
    exec(refused.value.sentence.split('python -c "')[1].removesuffix('"'), {})
    new = load_file(Path(fetch_base(str(tmp_path / "NEW"))) / "model.safetensors")
    assert all(torch.equal(new[name], weights[name]) for name in weights)
    assert (tmp_path / "NEW/tokenizer.json").exists()


def test_a_base_without_its_output_layer_is_refused(small_base, small_run, tmp_path) -> None:
    """A tied model has none in its files; one whose config says otherwise must have it."""
    shutil.copytree(small_base, tmp_path / "base")
    weights = load_file(small_base / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "base/model.safetensors", metadata={"format": "pt"})
    config = replace(small_run, base=str(tmp_path / "base"))
    with (
        worker.process_group(),
        pytest.raises(InputError, match=r"lacks 1 weights of its own config, first lm_head"),
    ):
        worker.make_strategy(config, torch.device("cpu"), 128)


@pytest.mark.parametrize("model_type", ["gemma", "granite", "deepseek_v3", "gpt2"])
def test_another_family_is_refused_by_name(tmp_path, model_type) -> None:
    AutoConfig.for_model(model_type).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"is a {model_type} model; expected one of the LLaMA"):
        load.read_config(str(tmp_path), RopeConfig(), 64)


def test_a_base_that_is_extended_already_is_not_extended_over_that(small_base, tmp_path) -> None:
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}
    config = load.read_config(str(small_base), RopeConfig(), 128)
    config.rope_parameters = rope
    config.save_pretrained(tmp_path)
    assert load.read_config(str(tmp_path), RopeConfig(), 128).rope_parameters == rope
    with pytest.raises(InputError, match=r"already extended .rope_type linear, 512 tokens"):
        load.read_config(str(tmp_path), RopeConfig(kind="yarn", factor=2.0), 128)
