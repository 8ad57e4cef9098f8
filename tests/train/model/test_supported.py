"""A base that cannot be trained is refused in one sentence, whatever is wrong with its files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from apps.common.command.cli import run
from apps.common.errors import InputError
from apps.train.__main__ import COMMANDS
from apps.train.config import RopeConfig
from apps.train.model import load
from apps.train.model.base_folder import fetch_base
from apps.train.model.stored import sources
from tests.train.families import FAMILIES, Family, save_family

INDEX = "model.safetensors.index.json"
SECOND = "model-00002-of-00006.safetensors"
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def base(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("base") / "model"
            family: Family = FAMILIES[name]
            made[name] = Path(save_family(folder, family))
        return made[name]

    return base


def prepared(folder: Path) -> None:
    """What a run does with its base before the first worker."""
    base = fetch_base(str(folder))
    config = load.read_config(base, RopeConfig(), 64)
    shapes = {name: p.shape for name, p in load.build_on_meta(config).named_parameters()}
    sources(base, config, shapes)


def refused(folder: Path, source: Path, damage: Damage, match: str) -> None:
    shutil.copytree(source, folder)
    prepared(folder)
    damage(folder)
    with pytest.raises(InputError, match=match) as error:
        prepared(folder)
    assert error.value.exit_code == 2 and "\n" not in error.value.sentence


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def index(change: Callable[[dict[str, str]], object]) -> Damage:
    def damage(base: Path) -> None:
        said = json.loads((base / INDEX).read_text())
        change(said["weight_map"])
        (base / INDEX).write_text(json.dumps(said))

    return damage


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"
WHOLE = "model.safetensors"
FILES: dict[str, tuple[str, Damage, str]] = {
    "a shard is not there": ("llama sharded", lambda b: (b / SECOND).unlink(), f"{SECOND} is miss"),
    "a shard is cut": ("llama sharded", lambda b: half(b / SECOND), "bytes and .* by its own head"),
    "a shard is a pointer": (
        "llama sharded", lambda b: (b / SECOND).write_text(LFS), f"{SECOND} is a pointer of git-l"
    ),
    "a pointer": ("llama", lambda b: (b / WHOLE).write_text(LFS), "pointer of git-lfs"),
    "empty": ("llama", lambda b: (b / WHOLE).write_bytes(b""), r"no whole .* \(0 bytes"),
    "cut in its header": (
        "llama", lambda b: (b / WHOLE).write_bytes((b / WHOLE).read_bytes()[:50]), "no whole safe"
    ),
    "cut in its weights": ("llama", lambda b: half(b / WHOLE), "it was cut short or changed"),
    "another kind of file": ("llama", lambda b: (b / WHOLE).write_bytes(b"PK" * 9), "no whole saf"),
    "a page that was saved": ("llama", lambda b: (b / WHOLE).write_text("<html>"), "no whole safe"),
    "an index that is no JSON": (
        "llama sharded", lambda b: (b / INDEX).write_text("{"), f"The {INDEX} .* expected JSON"
    ),
    "an index that is a list": (
        "llama sharded", lambda b: (b / INDEX).write_text("[]"), "holds a list"
    ),
    "an index without a map": (
        "llama sharded", lambda b: (b / INDEX).write_text("{}"), "has no weight_map"
    ),
    "an index of a folder above": (
        "llama sharded", index(lambda m: m.update(dict.fromkeys(m, f"../{SECOND}"))), "no weight_m"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_not_the_weights(bases, tmp_path: Path, kind: str) -> None:
    name, damage, match = FILES[kind]
    refused(tmp_path / "base", bases(name), damage, match)


SAID: dict[str, tuple[str, dict[str, object], str]] = {
    "activation": ("llama", {"hidden_act": "nope"}, "hidden_act 'nope', which transformers"),
    "activation of gemma": ("gemma2", {"hidden_activation": "nope"}, "hidden_activation 'nope'"),
    "rope": (
        "llama", {"rope_parameters": {"rope_type": "foo", "rope_theta": 1e4}},
        r"rope_type 'foo' \(expected default, linear",
    ),
    "rope of wide layers": (
        "gemma3", {"rope_parameters": {"full_attention": {"rope_type": "foo", "rope_theta": 1e4},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}, "rope_type 'foo'",
    ),
    "heads": ("llama", {"num_attention_heads": 3}, "is not a multiple of the number of att"),
    "groups": ("llama", {"num_key_value_heads": 3}, "4, which num_key_value_heads 3 does not"),
    "no heads": ("llama", {"num_attention_heads": 0}, "config.json of .* cannot be used"),
    "a number in words": ("llama", {"hidden_size": "wide"}, "config.json of .* cannot be used"),
    "padding": ("llama", {"pad_token_id": 100_000}, "pad_token_id 100000 .* --resize-embeddings"),
    "experts": ("mixtral", {"num_experts_per_tok": 9}, "num_experts_per_tok 9 of 4 experts"),
    "no experts": ("mixtral", {"num_experts_per_tok": -1}, r"num_experts_per_tok -1 \(expected at"),
    "no positions": ("llama", {"max_position_embeddings": 0}, r"max_position_embeddings 0 \(exp"),
    "no keys": ("qwen2", {"num_key_value_heads": 0}, r"num_key_value_heads 0 \(expected at least"),
    "no scale": ("gemma3", {"query_pre_attn_scalar": -1}, r"query_pre_attn_scalar -1 \(expected"),
    "both ways": ("llama", {"is_causal": False}, "has is_causal False .* not computed here"),
    "no window": ("mistral", {"sliding_window": 0}, r"sliding_window 0 \(expected at least 1 tok"),
    "a window of none": ("gemma3", {"sliding_window": None}, "and no sliding_window"),
    "layers of another kind": (
        "qwen2", {"layer_types": ["chunked_attention", "full_attention"]}, "'chunked_attention' \\("
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAID)
def test_a_config_that_no_model_follows_from(bases, tmp_path: Path, kind: str) -> None:
    name, changes, match = SAID[kind]

    def damage(base: Path) -> None:
        said = json.loads((base / "config.json").read_text()) | changes
        (base / "config.json").write_text(json.dumps(said))

    refused(tmp_path / "base", bases(name), damage, match)


def test_the_command_says_so_and_exits_with_2(bases, small_pack, tmp_path, capsys) -> None:
    shutil.copytree(bases("llama"), tmp_path / "base")
    half(tmp_path / "base" / WHOLE)
    asked = ["--data", str(small_pack), "--out", str(tmp_path / "run"), "--base"]
    command = ["run", "--preset", "debug", *asked, str(tmp_path / "base")]
    assert run("apps.train", COMMANDS, command) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and not (tmp_path / "run").exists()


def test_a_padding_token_that_was_added_is_given_an_embedding(bases, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(bases("llama"), base)
    said = json.loads((base / "config.json").read_text())
    added = {"id": said["vocab_size"], "content": "<added>", "special": True, "normalized": False,
             "single_word": False, "lstrip": False, "rstrip": False}  # fmt: skip
    tokens = json.loads((base / "tokenizer.json").read_text())
    tokens["added_tokens"].append(added)
    (base / "tokenizer.json").write_text(json.dumps(tokens))
    said["pad_token_id"] = said["vocab_size"]
    (base / "config.json").write_text(json.dumps(said))
    config = load.read_config(str(base), RopeConfig(), 64, resized=True)
    assert load.build_on_meta(config).get_input_embeddings().weight.shape[0] == config.vocab_size


def test_a_tensor_without_numbers_is_no_damage(bases, tmp_path: Path) -> None:
    shutil.copytree(bases("llama"), tmp_path / "base")
    file = tmp_path / "base" / WHOLE
    extra = {"model.rotary_emb.inv_freq": torch.empty(0)}
    save_file(load_file(file) | extra, file, metadata={"format": "pt"})
    prepared(tmp_path / "base")
