import json
import os
import random
import socket

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from apps.common.command.cli import run
from apps.common.errors import InputError
from apps.common.text.templates import load_template
from apps.common.text.tokenizer import load_tokenizer
from apps.train.__main__ import COMMANDS

SMALL = "--vocab-size 300 --hidden-size 32 --layers 1 --heads 2 --ffn-size 64 --row-tokens 32"


def test_base_learns_its_text_and_is_a_hugging_face_folder(tmp_path, capsys) -> None:
    draw = random.Random(0)
    words = ["red", "green", "blue", "small", "big", "cat", "dog", "river"]
    lines = [" ".join(draw.choices(words, k=12)) for _ in range(300)]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    out = tmp_path / "base"
    argv = f"base --text {tmp_path}/text.txt --out {out} {SMALL} --tokens 6400"
    assert run("apps.train", COMMANDS, argv.split()) == 0
    done = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert done["loss"] < 4.5  # ln(300) = 5.7 at the start
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert text == load_template(str(out)).render([{"role": "user", "content": "hi"}]).text
    sample = "Grüße, 你好\n  x = 1"
    assert tokenizer.encode(sample) == load_tokenizer(str(out)).backend.encode(sample).ids
    assert tokenizer.decode(tokenizer.encode(sample)) == sample


def test_base_names_a_missing_text_file(tmp_path, capsys) -> None:
    argv = ["base", "--text", f"{tmp_path}/none.txt", "--out", f"{tmp_path}/base"]
    assert run("apps.train", COMMANDS, argv) == 2
    assert "none.txt does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("line", ['{"words": "not"}', '{"text": null}', '{"text": 5}', "[1]"])
def test_base_names_the_line_that_cannot_be_read(tmp_path, capsys, line: str) -> None:
    (tmp_path / "text.jsonl").write_text(f'{{"text": "fine"}}\n{line}\n')
    argv = ["base", "--text", f"{tmp_path}/text.jsonl", "--out", f"{tmp_path}/base"]
    assert run("apps.train", COMMANDS, argv) == 2
    assert "Line 2 of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--max-position", "64"], "row_tokens is 256 and max_position 64"),
        (["--vocab-size", "100"], "vocab_size is 100; expected at least 259"),
        (["--template", "vicuna"], "No chat template 'vicuna'; expected one of"),
        (["--template", "chatml"], "chatml"),
    ],
)
def test_what_cannot_become_a_base_is_refused_before_it_is_trained(
    tmp_path, capsys, monkeypatch, flags, said: str
) -> None:
    monkeypatch.setattr("apps.train.base.pretrain", pytest.fail)
    (tmp_path / "text.txt").write_text("a small cat\n")
    argv = ["base", "--text", f"{tmp_path}/text.txt", "--out", f"{tmp_path}/base", *flags]
    assert run("apps.train", COMMANDS, argv) == 2
    told = capsys.readouterr().err.strip()
    assert said in told and "\n" not in told
    assert not (tmp_path / "base").exists()


def small(tmp_path, *flags: str) -> int:
    (tmp_path / "text.txt").write_text("a small cat\n")
    argv = f"base --text {tmp_path}/text.txt --out {tmp_path}/base {SMALL} --tokens 64"
    return run("apps.train", COMMANDS, [*argv.split(), *flags])


def test_a_base_that_is_cut_short_leaves_nothing_that_looks_like_a_model(
    tmp_path, monkeypatch
) -> None:
    replace = os.replace

    def replace_all_but_the_last(source: str, target: str) -> None:
        if os.path.basename(target) == "config.json":
            kept = {path.name for path in (tmp_path / "base").iterdir()}
            written = {"tokenizer.json", "chat_template.jinja", "model.safetensors", "lineage.json"}
            assert written <= kept
            raise InputError("The machine is gone.")
        replace(source, target)

    monkeypatch.setattr("apps.train.model.publish.os.replace", replace_all_but_the_last)
    assert small(tmp_path) == 2
    assert not (tmp_path / "base/config.json").exists()
    assert not list((tmp_path / "base").glob(".*"))


def test_a_base_made_again_leaves_no_weights_of_the_one_before(tmp_path) -> None:
    """Of a model in several files, whose index a reader would follow; others' files stay."""
    assert small(tmp_path) == 0
    folder = tmp_path / "base"
    for name in ("model-00001.safetensors", "model.safetensors.index.json", "notes.txt"):
        (folder / name).write_text("{}")
    left = folder / f".base.{socket.gethostname()}.partial"
    left.mkdir()
    (left / "model.safetensors").write_text("of a command that was killed")
    assert small(tmp_path, "--seed", "1") == 0
    kept = {path.name for path in folder.iterdir()}
    assert {name for name in kept if "safetensors" in name} == {"model.safetensors"}
    assert "notes.txt" in kept and left.name not in kept


@pytest.mark.parametrize("name", ["config.json", "config.yaml"])
def test_base_leaves_what_another_command_wrote(tmp_path, capsys, name: str) -> None:
    """Before a text is read or a wheel is looked for: neither of these is there."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / name).write_text("{}")
    for source in (["--text", f"{tmp_path}/none.txt"], ["--from-gguf", f"{tmp_path}/none.gguf"]):
        argv = ["base", *source, "--out", f"{tmp_path}/model"]
        assert run("apps.train", COMMANDS, argv) == 2
        said = capsys.readouterr().err
        assert f"holds a {name} that this command has not written; expected a new folder" in said
    assert [path.name for path in (tmp_path / "model").iterdir()] == [name]
