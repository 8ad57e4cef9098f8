import json
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from apps.common.files import config as configs
from apps.common.files import storage
from apps.common.packs import open_pack
from apps.common.text.templates import load_template
from apps.train import export
from apps.train.batches.micro_batch import micro_batch
from apps.train.checkpoint import checkpoint
from apps.train.config import LoraConfig, RopeConfig, RunConfig
from apps.train.gguf.metadata import open_gguf
from apps.train.gguf.tensors import tensors
from apps.train.loop.record import read_metrics
from apps.train.model import load, lora, weight_files
from apps.train.model.base_folder import fetch_base
from tests.made import sentencepiece_folder
from tests.train import real_vllm
from tests.train.conftest import save_model, save_pack
from tests.train.exports import exported, finished, loaded, refused
from tests.train.ranks import rows_of

CHAT = [{"role": "user", "content": "What is the capital of France?"}]


def trained_logits(config: RunConfig, row: int = 0) -> torch.Tensor:
    """Logits of the run's own model, rebuilt from its checkpoint, on one conversation."""
    folder = fetch_base(config.base)
    causal_lm = load.build_on_meta(load.read_config(folder, config.rope, config.max_length))
    if config.adapter == "lora":
        lora.inject(causal_lm, config.lora)
    load.materialize(causal_lm, torch.device("cpu"))
    load.load_weights(causal_lm, folder, lora.stored_names(causal_lm))
    found = checkpoint.newest(config.out, "digest", pytest.fail)
    causal_lm.load_state_dict(export.read_weights(found), strict=False)
    batch = micro_batch(rows_of(config), torch.tensor([row]).numpy(), torch.device("cpu"))
    length = rows_of(config).row(row)[2][0]
    with torch.no_grad():
        return causal_lm(
            input_ids=batch.ids_BT, position_ids=batch.position_ids_BT, packing=batch.packing
        ).logits[0, :length]


def exported_logits(loaded: torch.nn.Module, config: RunConfig, row: int = 0) -> torch.Tensor:
    ids, _, lengths = rows_of(config).row(row)
    with torch.no_grad():
        return loaded(input_ids=torch.tensor(ids[: lengths[0]])[None].long()).logits[0]


def test_export_then_reload_gives_the_run_s_logits(full_run, tmp_path) -> None:
    folder = exported(full_run, tmp_path / "model", "--dtype", "fp32")
    model = loaded(folder)
    ours = trained_logits(full_run)
    torch.testing.assert_close(exported_logits(model, full_run), ours, atol=2e-5, rtol=2e-5)
    base = loaded(Path(full_run.base))
    assert (exported_logits(base, full_run) - ours).abs().max() > 0.1


def test_the_folder_says_what_it_is(full_run, tmp_path) -> None:
    folder = exported(full_run, tmp_path / "model")
    lineage = json.loads((folder / "lineage.json").read_text())
    assert lineage["checkpoint"]["step"] == 4
    assert lineage["inputs"]["data"] == open_pack(full_run.data).info.digest
    assert lineage["run"]["optim"]["lr"] == 2e-3
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    stop = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_ids_to_tokens(stop) == "</s>"
    template = load_template("llama-2")
    text = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert text == template.render(CHAT, add_generation_prompt=True).text
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o644 for p in folder.iterdir())


def test_the_config_names_no_code_that_did_not_come_along(full_run, tmp_path) -> None:
    """A loader that trusts the folder's code would look for it there."""
    base = tmp_path / "base"
    shutil.copytree(full_run.base, base)
    said = json.loads((base / "config.json").read_text())
    said["auto_map"] = {"AutoModelForCausalLM": "modeling_own.Own"}
    (base / "config.json").write_text(json.dumps(said))
    own = finished(replace(full_run, base=str(base), out=str(tmp_path / "run"), steps=1))
    assert "auto_map" not in json.loads((exported(own, tmp_path / "m") / "config.json").read_text())


def test_a_checkpoint_that_its_run_deletes_meanwhile_is_a_sentence(
    full_run, tmp_path, capsys, monkeypatch
) -> None:
    """A run that goes on keeps its newest ones; nothing half-written is left of the export."""
    out = tmp_path / "run"
    shutil.copytree(full_run.out, out)
    write = export.write_folder

    def write_late(folder, saved, *rest):
        storage.remove_tree(saved.uri)
        yield from write(folder, saved, *rest)

    monkeypatch.setattr(export, "write_folder", write_late)
    said = refused(["export", str(out), "--out", str(tmp_path / "model")], capsys)
    assert "step-00000004 was deleted while it was read: its run goes on" in said
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    listed = storage.list_dir
    monkeypatch.setattr(
        storage, "list_dir", lambda uri: [*listed(uri), "__0_0.distcp", ".metadata"]
    )
    (saved,) = checkpoint.committed(str(out))
    shard = Path(saved.uri) / "__0_0.distcp"
    shard.unlink()
    assert (
        checkpoint.damage(saved.uri, saved.commit, "digest") == f"its file {shard.name} is missing."
    )


def test_the_loss_in_the_lineage_is_that_of_the_step(full_run, tmp_path) -> None:
    losses = {record["step"]: record["loss"] for record in read_metrics(full_run.out)}
    for step in (2, 4):
        folder = exported(full_run, tmp_path / "model", "--step", str(step))
        assert json.loads((folder / "lineage.json").read_text())["loss"] == losses[step]
    assert losses[2] != losses[4]


def test_large_models_are_split_into_files(full_run, tmp_path, monkeypatch) -> None:
    whole = exported(full_run, tmp_path / "whole", "--dtype", "fp32")
    monkeypatch.setattr(weight_files, "FILE_BYTES", 40_000)
    split = exported(full_run, tmp_path / "split", "--dtype", "fp32")
    assert len(list(split.glob("model-*.safetensors"))) > 2
    a, b = loaded(whole).state_dict(), loaded(split).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_exporting_twice_replaces_the_folder(full_run, tmp_path) -> None:
    folder = exported(full_run, tmp_path / "model")
    first = sorted(path.name for path in folder.iterdir())
    (folder / "left-over.safetensors").write_bytes(b"old")
    exported(full_run, tmp_path / "model")
    assert sorted(path.name for path in folder.iterdir()) == first
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_length_extension_is_saved_and_gives_the_same_logits(small_run, tmp_path, kind) -> None:
    rope = RopeConfig(kind=kind, factor=4.0)
    config = finished(replace(small_run, workers=1, steps=2, rope=rope))
    folder = exported(config, tmp_path / "model", "--dtype", "fp32")
    settings = json.loads((folder / "config.json").read_text())
    assert settings["max_position_embeddings"] == 4 * 512
    assert settings["rope_parameters"]["rope_type"] == kind
    assert settings["rope_parameters"]["factor"] == 4.0
    ours = trained_logits(config)
    torch.testing.assert_close(exported_logits(loaded(folder), config), ours, atol=2e-5, rtol=2e-5)
    (folder / "config.json").write_text(json.dumps({**settings, "rope_parameters": None}))
    assert (exported_logits(loaded(folder), config) - ours).abs().max() > 1e-3


@pytest.fixture(scope="module")
def lora_run(small_base, small_pack, tmp_path_factory) -> RunConfig:
    from tests.train.conftest import small_config

    config = small_config(small_base, small_pack, tmp_path_factory.mktemp("lora") / "run")
    lora = LoraConfig(rank=4, alpha=16.0)
    config = replace(config, adapter="lora", lora=lora, workers=1, steps=4)
    return finished(replace(config, optim=replace(config.optim, lr=2e-2)))


def test_lora_trains_and_stores_adapters_only(lora_run) -> None:
    found = checkpoint.newest(lora_run.out, "digest", pytest.fail)
    names = checkpoint.tensor_shapes(found, "model.")
    assert len(names) == 2 * 7 * 2  # A and B of 7 layers in 2 blocks
    assert all("lora_" in name for name in names)
    assert any(t.any() for n, t in export.read_weights(found).items() if "lora_B" in n)


def test_lora_exports_merged_or_as_an_adapter(lora_run, tmp_path) -> None:
    merged = loaded(exported(lora_run, tmp_path / "merged", "--dtype", "fp32"))
    folder = exported(lora_run, tmp_path / "adapter", "--adapter-only", "--dtype", "fp32")
    assert set(load_file(folder / "adapter_model.safetensors")) != set()
    adapted = PeftModel.from_pretrained(loaded(Path(lora_run.base)), folder)
    ours = trained_logits(lora_run)
    torch.testing.assert_close(exported_logits(merged, lora_run), ours, atol=2e-4, rtol=2e-4)
    torch.testing.assert_close(exported_logits(adapted, lora_run), ours, atol=2e-4, rtol=2e-4)
    assert (exported_logits(loaded(Path(lora_run.base)), lora_run) - ours).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["bf16", "fp16", "fp32"])
def test_lora_exports_in_the_wanted_type_merged_or_as_an_adapter(lora_run, tmp_path, kind) -> None:
    merged = exported(lora_run, tmp_path / "merged", "--dtype", kind)
    adapted = exported(lora_run, tmp_path / "adapter", "--adapter-only", "--dtype", kind)
    for file in (merged / "model.safetensors", adapted / "adapter_model.safetensors"):
        assert {tensor.dtype for tensor in load_file(file).values()} == {export._DTYPES[kind]}


def test_an_adapter_does_not_lose_the_length_extension_on_its_way_out(
    lora_run, tmp_path, capsys
) -> None:
    extended = replace(lora_run, rope=RopeConfig(kind="linear", factor=4.0))
    extended = replace(extended, out=str(tmp_path / "run"))
    configs.write_resolved(extended, extended.out)
    argv = ["export", extended.out, "--out", str(tmp_path / "adapter"), "--adapter-only"]
    assert "rope.kind linear, factor 4), which an adapter's folder cannot" in refused(argv, capsys)


def test_wrong_requests_are_refused_with_a_sentence(full_run, tmp_path, capsys) -> None:
    out = ["--out", str(tmp_path / "model")]
    assert "is not a run" in refused(["export", str(tmp_path), *out], capsys)
    said = refused(["export", full_run.out, *out, "--step", "3"], capsys)
    assert "no whole checkpoint of step 3 (steps with one: 4, 2)" in said
    said = refused(["export", full_run.out, *out, "--adapter-only"], capsys)
    assert "trained all weights" in said


def greedy(folder: Path, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    options = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    return loaded(folder).generate(ids, **options)[0, len(prompt) :].tolist()


@pytest.mark.slow
@pytest.mark.timeout(900)  # vLLM takes a minute to start, where nothing else runs
@real_vllm.needed
@pytest.mark.parametrize("adapter_kind", ["none", "lora"])
def test_vllm_loads_an_export_and_answers_as_transformers_does(
    small_run, tmp_path, adapter_kind
) -> None:
    """Whole or merged, and an adapter alone; vLLM on a CPU knows heads of 32 numbers and more."""
    base = Path(shutil.copytree(small_run.base, tmp_path / "base"))
    save_model(base, hidden_size=128, intermediate_size=192)
    config = replace(small_run, base=str(base), workers=1, steps=4, adapter=adapter_kind)
    config = finished(config)
    folder = exported(config, tmp_path / "model", "--dtype", "fp32")
    ids, _, lengths = rows_of(config).row(0)
    prompt = [int(token) for token in ids[: lengths[0] // 2]]
    expected = greedy(folder, prompt)
    assert len(set(expected)) > 3 and expected != greedy(base, prompt)
    assert real_vllm.answer(folder, prompt) == expected
    if adapter_kind == "lora":
        alone = exported(config, tmp_path / "adapter", "--dtype", "fp32", "--adapter-only")
        assert real_vllm.answer(base, prompt, str(alone)) == expected


def merged_weights(base: str, folder: Path) -> dict[str, torch.Tensor]:
    """Of a model folder, or of an adapter's over its base."""
    if not (folder / "adapter_config.json").exists():
        return loaded(folder).state_dict()
    return PeftModel.from_pretrained(loaded(Path(base)), folder).merge_and_unload().state_dict()


@pytest.mark.parametrize("kind", ["all", "top layers", "lora", "adapter alone"])
def test_a_share_of_the_tuning_lies_on_the_way_from_the_base_to_the_trained_weights(
    small_run, full_run, lora_run, tmp_path, kind
) -> None:
    config = full_run if kind == "all" else lora_run
    if kind == "top layers":
        changes = {"out": str(tmp_path / "run"), "top_layers": 1, "workers": 1, "steps": 4}
        config = finished(replace(small_run, **changes))
    options = ["--dtype", "fp32"] + ["--adapter-only"] * (kind == "adapter alone")
    whole = exported(config, tmp_path / "whole", *options)
    part = exported(config, tmp_path / "part", *options, "--tuned-share", "0.75")
    trained, shared = (merged_weights(config.base, folder) for folder in (whole, part))
    moved = 0
    for name, weight in loaded(Path(config.base)).state_dict().items():
        expected = weight + 0.75 * (trained[name] - weight)
        torch.testing.assert_close(shared[name], expected, atol=1e-6, rtol=1e-5)
        moved += not torch.equal(trained[name], weight)
    assert moved


@pytest.mark.parametrize("share", ["0", "1.5", "-1", "nan"])
def test_a_share_that_is_none_is_refused(full_run, tmp_path, capsys, share) -> None:
    argv = ["export", full_run.out, "--out", str(tmp_path / "model"), "--tuned-share", share]
    assert "expected more than 0 and at most 1" in refused(argv, capsys)
    assert not (tmp_path / "model").exists()


def test_top_layers_alone_are_trained_and_stored(small_base, small_pack, tmp_path) -> None:
    from tests.train.conftest import small_config

    config = small_config(small_base, small_pack, tmp_path / "run")
    config = finished(replace(config, top_layers=1, workers=1, steps=4))
    found = checkpoint.newest(config.out, "digest", pytest.fail)
    names = checkpoint.tensor_shapes(found, "model.")
    assert len(names) == 9 and all(".layers.1." in name for name in names)
    model = loaded(exported(config, tmp_path / "model", "--dtype", "fp32"))
    base = loaded(Path(config.base))
    same = {n: torch.equal(w, base.state_dict()[n]) for n, w in model.state_dict().items()}
    assert not any(same[name] for name in names)
    assert all(same[name] for name in set(same) - set(names))
    ours = trained_logits(config)
    torch.testing.assert_close(exported_logits(model, config), ours, atol=2e-5, rtol=2e-5)


def test_lora_of_top_layers_exports_an_adapter_of_them(lora_run, tmp_path) -> None:
    config = finished(replace(lora_run, out=str(tmp_path / "run"), top_layers=1))
    merged = loaded(exported(config, tmp_path / "merged", "--dtype", "fp32"))
    folder = exported(config, tmp_path / "adapter", "--adapter-only", "--dtype", "fp32")
    assert all(".layers.1." in name for name in load_file(folder / "adapter_model.safetensors"))
    adapted = PeftModel.from_pretrained(loaded(Path(config.base)), folder)
    ours = exported_logits(merged, config)
    torch.testing.assert_close(exported_logits(adapted, config), ours, atol=2e-4, rtol=2e-4)
    assert (exported_logits(loaded(Path(config.base)), config) - ours).abs().max() > 1e-3


def test_a_licence_of_the_base_travels_on(full_run, tmp_path) -> None:
    """Those of a folder too."""
    licence, folder = (Path(full_run.base) / name for name in ("LICENSE", "LICENSES"))
    licence.write_text("its terms")
    folder.mkdir()
    (folder / "MIT.txt").write_text("more terms")
    (folder / "of others").mkdir()
    try:
        out = exported(full_run, tmp_path / "model")
        assert (out / "LICENSE").read_text() == "its terms"
        assert (out / "LICENSES-MIT.txt").read_text() == "more terms"
        assert not (out / "LICENSES-of others").exists()
    finally:
        licence.unlink()
        shutil.rmtree(folder)


def test_a_gguf_file_lies_beside_the_weights_and_holds_the_same_model(full_run, tmp_path) -> None:
    out = exported(full_run, tmp_path / "model", "--dtype", "fp32", "--gguf", "f32")
    assert (out / "model-f32.gguf").stat().st_mode & 0o777 == 0o644
    file = open_gguf(str(out / "model-f32.gguf"))
    assert file.value("general.name") == "model", "and not that of the folder it was made in"
    shape = AutoModelForCausalLM.from_pretrained(out).config
    read = dict(tensors(file, shape.num_attention_heads, shape.num_key_value_heads))
    stored = load_file(out / "model.safetensors")
    assert read.keys() == stored.keys()
    assert all(torch.equal(read[name], stored[name]) for name in stored)


def test_an_adapter_alone_is_no_gguf_file(lora_run, tmp_path, capsys) -> None:
    argv = ["export", lora_run.out, "--out", str(tmp_path / "m"), "--adapter-only"]
    assert "leave --adapter-only" in refused([*argv, "--gguf", "f16"], capsys)


def test_what_gguf_cannot_say_is_told_before_a_weight_is_read(
    small_run, full_run, tmp_path, capsys, monkeypatch
) -> None:
    """A tokenizer, positions that only this run scales, and more tokens than rows."""
    monkeypatch.setattr(export, "write_folder", pytest.fail)
    argv = ["export", full_run.out, "--out", str(tmp_path / "model"), "--gguf", "q8_0"]
    with monkeypatch.context() as patch:
        patch.setattr("apps.train.gguf.write_tokenizer.PRE_TOKENIZERS", ("qwen2",))
        assert "no name for the way in which this tokenizer splits" in refused(argv, capsys)
    yarn = replace(small_run, rope=RopeConfig(kind="yarn", factor=4.0))
    configs.write_resolved(yarn, yarn.out)
    assert "positions scaled by 'yarn'" in refused(["export", yarn.out, *argv[2:]], capsys)
    base = Path(shutil.copytree(full_run.base, tmp_path / "base"))
    save_model(base, vocab_size=300)
    fewer = replace(small_run, base=str(base))
    configs.write_resolved(fewer, fewer.out)
    assert "llama.cpp expects a row for each" in refused(["export", fewer.out, *argv[2:]], capsys)
    assert not (tmp_path / "model").exists()


def test_a_tokenizer_of_newer_sentencepiece_is_refused_before_a_weight_is_read(
    small_run, tmp_path, capsys, monkeypatch
) -> None:
    """LLaMA's `legacy: false`, whose blanks llama.cpp puts elsewhere."""
    monkeypatch.setattr(export, "write_folder", pytest.fail)
    base = tmp_path / "base"
    sentencepiece_folder(base, legacy=False)
    save_model(base)
    save_pack(tmp_path / "pack", base, num_rows=8, row_tokens=128, template="vicuna-v1.1")
    config = replace(small_run, base=str(base), data=str(tmp_path / "pack"))
    configs.write_resolved(config, config.out)
    argv = ["export", config.out, "--out", str(tmp_path / "model"), "--gguf", "q8_0"]
    assert "llama.cpp would split" in refused(argv, capsys)


@pytest.mark.parametrize("stated", [["LlamaModel"], None, ["LlamaForSequenceClassification"]])
def test_the_export_says_that_it_is_a_language_model(small_run, tmp_path, stated) -> None:
    """Whatever its base was saved as: vLLM goes by the name."""
    base = Path(shutil.copytree(small_run.base, tmp_path / "base"))
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**settings, "architectures": stated}))
    config = finished(replace(small_run, base=str(base), workers=1, steps=2))
    saved = json.loads((exported(config, tmp_path / "model") / "config.json").read_text())
    assert saved["architectures"] == ["LlamaForCausalLM"]


@pytest.mark.parametrize(
    ("stated", "kept"),
    [
        (
            {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "max_length": 9},
            {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20},
        ),
        ({"temperature": 0.7, "repetition_penalty": 1.05}, {"repetition_penalty": 1.05}),
        ({"eos_token_id": 1}, {}),
    ],
)
def test_the_sampling_that_the_base_asks_for_goes_along(small_run, tmp_path, stated, kept) -> None:
    base = Path(shutil.copytree(small_run.base, tmp_path / "base"))
    (base / "generation_config.json").write_text(json.dumps(stated))
    config = finished(replace(small_run, base=str(base), workers=1, steps=2))
    saved = json.loads(
        (exported(config, tmp_path / "model") / "generation_config.json").read_text()
    )
    ours = {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version"}
    assert {name: value for name, value in saved.items() if name not in ours} == kept
    assert saved["eos_token_id"] == 2
