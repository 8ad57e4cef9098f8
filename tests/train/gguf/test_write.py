"""A GGUF file that was written says what the folder says: read back, and run by llama.cpp."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from apps.common.command.cli import run
from apps.common.errors import InputError
from apps.common.text.templates import load_template, write_template
from apps.common.text.tokenizer import load_tokenizer
from apps.train.__main__ import COMMANDS
from apps.train.gguf.metadata import open_gguf
from apps.train.gguf.write import KINDS, check_computes_alike, write_gguf
from apps.train.gguf.write_tokenizer import write_tokenizer
from tests.made import byte_level_folder, sentencepiece_folder
from tests.train.gguf.files import exact
from tests.train.gguf.served import llama_cpp

LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "llama, tied": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}),
    "llama, biases": (LlamaConfig, LlamaForCausalLM, {"attention_bias": True}),
    "llama 3.1": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": LLAMA_3_ROPE}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": None}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {}),
}
TOKENIZERS = {
    "byte-level": (byte_level_folder, "llama-2"),
    "byte-level, Llama 3": (lambda folder: byte_level_folder(folder, "llama-3"), "llama-3"),
    "sentencepiece": (lambda folder: sentencepiece_folder(folder, legacy=True), "vicuna-v1.1"),
}


def save(folder: Path, family: str = "llama", tokenizer: str = "byte-level") -> PreTrainedModel:
    config, kind, changes = FAMILIES[family]
    folder.mkdir(exist_ok=True)
    make, template = TOKENIZERS[tokenizer]
    make(folder)
    loaded = load_tokenizer(str(folder))
    named = load_template(template, loaded)
    write_template(str(folder), named)
    torch.manual_seed(0)
    sizes = {
        "vocab_size": loaded.backend.get_vocab_size() + 3,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
    }
    model = exact(kind(config(**sizes | changes)))
    stops = list(named.stop_token_ids(loaded.backend))
    model.generation_config = GenerationConfig(eos_token_id=stops)
    model.save_pretrained(folder)
    return model


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(3, 33).view(1, 30)).logits


def read_back(file: Path, out: Path) -> Path:
    argv = ["base", "--from-gguf", str(file), "--out", str(out), "--template", "llama-2"]
    assert run("apps.train", COMMANDS, argv) == 0
    return out


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_read_back_computes_and_splits_text_as_the_folder(
    tmp_path: Path, family: str
) -> None:
    model = save(tmp_path / "model", family)
    write_gguf(str(tmp_path / "model"), str(tmp_path / "m.gguf"), "f32")
    out = read_back(tmp_path / "m.gguf", tmp_path / "back")
    back = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    torch.testing.assert_close(logits(back), logits(model), atol=1e-4, rtol=1e-4)
    text = "It's 12,345 Grüße\n\n  x = 1"
    ids = [load_tokenizer(str(f)).backend.encode(text).ids for f in (tmp_path / "model", out)]
    assert ids[0] == ids[1]


def greedy(model: PreTrainedModel, ids: list[int], num_new: int) -> list[int]:
    """Tokens that end an answer are left out, as llama.cpp does under ignore_eos."""
    for _ in range(num_new):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        logits[model.generation_config.eos_token_id] = -torch.inf
        ids = [*ids, int(logits.argmax())]
    return ids[-num_new:]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "llama, biases"])
def test_llama_cpp_answers_and_splits_text_as_the_folder(
    tmp_path: Path, family: str, tokenizer: str
) -> None:
    folder = str(tmp_path / "model")
    model = save(tmp_path / "model", family, tokenizer)
    write_gguf(folder, str(tmp_path / "m.gguf"), "f32")
    loaded = load_tokenizer(folder)
    text = "The capital of France is 2+2, naïve\n\n  don't"
    ids = loaded.backend.encode(text, add_special_tokens=False).ids
    asked = {"prompt": ids, "n_predict": 16, "temperature": 0.0, "top_k": 1}
    question = {"role": "user", "content": "Is it?"}
    prompt = load_template(folder, loaded).render([question], add_generation_prompt=True).text
    texts = [text, prompt, f"{prompt}\n\nWord", "\n\nWord\n\n 12345"]
    with llama_cpp(tmp_path / "m.gguf") as client:
        told = client.post("/completion", json=asked | {"ignore_eos": True, "return_tokens": True})
        assert told.json()["tokens"] == greedy(model, ids, 16)
        for content in texts:
            split = client.post("/tokenize", json={"content": content, "parse_special": True})
            wanted = loaded.backend.encode(content, add_special_tokens=False).ids
            assert split.json()["tokens"] == wanted
        shown = client.post("/apply-template", json={"messages": [question]})
        assert shown.json()["prompt"] == prompt


@pytest.mark.parametrize("kind", KINDS)
def test_each_type_of_weights_is_near_the_folders(tmp_path: Path, kind: str) -> None:
    model = save(tmp_path / "model")
    write_gguf(str(tmp_path / "model"), str(tmp_path / "m.gguf"), kind)
    out = read_back(tmp_path / "m.gguf", tmp_path / "back")
    back = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    found, wanted = logits(back), logits(model)
    if kind == "q8_0":
        assert torch.cosine_similarity(found, wanted, dim=-1).min() > 0.98
    else:  # bf16 holds these weights exactly, and so do the wider types
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


def test_what_gguf_cannot_say_is_refused() -> None:
    with pytest.raises(InputError, match="knows no gemma2 models"):
        check_computes_alike(PretrainedConfig.from_dict({"model_type": "gemma2"}))
    scaled = LlamaConfig(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    with pytest.raises(InputError, match="dynamic"):
        check_computes_alike(scaled)


@pytest.mark.parametrize(
    ("config", "changes", "said"),
    [
        (LlamaConfig, {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        (Qwen2Config, {"hidden_act": "relu"}, "hidden_act 'relu'"),
        (Qwen3Config, {"attention_bias": True}, "attention_bias True"),
        (LlamaConfig, {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
    ],
)
def test_a_model_that_llama_cpp_would_compute_otherwise_is_refused(config, changes, said) -> None:
    with pytest.raises(InputError, match=said):
        check_computes_alike(config(**changes))
    check_computes_alike(config())


def legacy_false(folder: Path) -> None:
    sentencepiece_folder(folder, legacy=False)


def changed(folder: Path, change: Callable[[dict], object]) -> None:
    """Llama 3's tokenizer.json after `change`."""
    byte_level_folder(folder, "llama-3")
    saved = json.loads((folder / "tokenizer.json").read_text())
    change(saved)
    (folder / "tokenizer.json").write_text(json.dumps(saved))


def unreachable(saved: dict) -> None:
    """A token that no merges lead to: it is met only where merges are ignored."""
    vocabulary = saved["model"]["vocab"]
    vocabulary["Word"] = max(vocabulary.values()) + 1


def takes_blanks(saved: dict) -> None:
    saved["added_tokens"][-1]["rstrip"] = True


def ends_with_eos(saved: dict) -> None:
    eos = saved["added_tokens"][1]
    saved["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": eos["content"], "type_id": 0}},
        ],
        "pair": [],
        "special_tokens": {
            eos["content"]: {
                "id": eos["content"],
                "ids": [eos["id"]],
                "tokens": [eos["content"]],
            }
        },
    }


@pytest.mark.parametrize(
    ("make", "template", "said"),
    [
        (legacy_false, "vicuna-v1.1", "would split '<s>A chat"),
        (lambda folder: changed(folder, unreachable), "llama-3", "no name for the way"),
        (lambda folder: changed(folder, takes_blanks), "llama-3", "would split '<|eot_id|>a"),
        (
            lambda folder: changed(folder, lambda saved: saved.update(normalizer={"type": "NFKC"})),
            "llama-3",
            "would split",
        ),
    ],
)
def test_a_tokenizer_that_llama_cpp_would_read_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make, template: str, said: str
) -> None:
    monkeypatch.setitem(TOKENIZERS, "made", (make, template))
    save(tmp_path / "model", tokenizer="made")
    with pytest.raises(InputError, match=re.escape(said)):
        write_gguf(str(tmp_path / "model"), str(tmp_path / "m.gguf"), "f32")
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize("change", [ends_with_eos, lambda saved: None])
def test_what_stands_around_a_text_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change
) -> None:
    make = (lambda folder: changed(folder, change), "llama-3")
    monkeypatch.setitem(TOKENIZERS, "made", make)
    save(tmp_path / "model", tokenizer="made")
    write_gguf(str(tmp_path / "model"), str(tmp_path / "m.gguf"), "f32")
    file = open_gguf(str(tmp_path / "m.gguf"))
    assert file.value("tokenizer.ggml.add_eos_token") is (change is ends_with_eos)
    assert file.value("tokenizer.ggml.pre") == "llama-bpe"


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "model")
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    with pytest.raises(InputError, match="has 420 ids and the model 300 rows"):
        write_tokenizer(writer, str(tmp_path / "model"), 300)


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "model")
    path = tmp_path / "model" / "tokenizer.json"
    saved = json.loads(path.read_text())
    saved["pre_tokenizer"] = {"type": "Whitespace"}
    path.write_text(json.dumps(saved))
    with pytest.raises(InputError, match="no name for the way"):
        write_gguf(str(tmp_path / "model"), str(tmp_path / "m.gguf"), "f32")
