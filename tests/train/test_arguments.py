"""What is wrong with a command's arguments is said before torch is imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from apps.common.command.cli import run
from apps.common.files.lock import alone_in
from apps.train.__main__ import COMMANDS

_WITHOUT_TORCH = """
import json, sys

class Refused:
    def find_spec(name, path, target=None):
        assert name not in ("torch", "transformers", "ray"), name

sys.meta_path.insert(0, Refused)
from apps.common.command.cli import run
from apps.common.files.lock import alone_in
from apps.train.__main__ import COMMANDS
print([run("apps.train", COMMANDS, argv) for argv in json.loads(sys.argv[1])])
"""


def said_without_torch(*commands: list[str]) -> list[str]:
    """The sentence of each command, all refused."""
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, json.dumps(commands)], capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [str([2] * len(commands))], done.stderr[-2000:]
    return done.stderr.splitlines()


def test_wrong_arguments_are_refused_without_torch(
    small_base: Path, small_pack: Path, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "text.txt").write_text("a small cat\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text(f"base: {small_base}\ndata: {small_pack}\nout: run\n")
    start = ["run", "--preset", "debug", "--max-length", "128"]
    pack, base = ["--data", str(small_pack)], ["--base", str(small_base)]
    out, none = ["--out", str(tmp_path / "new")], str(tmp_path / "none")
    foreign = ["--out", str(tmp_path / "model")]
    export = ["export", str(tmp_path / "run")]
    expected = [
        ([*start, *pack, *out, "--base", none], f"No model folder '{none}'"),
        ([*start, *base, *out, "--data", none], f"{none} holds no pack.json"),
        ([*start, *base, *pack, *foreign], "holds a config.json that this command has not written"),
        ([*start, *base, *pack, *out, "--lora.rank", "8"], "lora.rank is 8 and nothing reads it"),
        ([*start, *base, *pack, *out, "--max-length", "64"], "holds rows of 128 tokens"),
        (["export", none, *out], "is not a run"),
        (["export", str(small_pack), *out], "is not a run"),
        ([*export, *out, "--adapter-only"], "trained all weights"),
        ([*export, *out, "--best", "--step", "4"], "--best and --step each name a checkpoint"),
        ([*export, *out, "--tuned-share", "nan"], "--tuned-share nan is no share"),
        ([*export, "--out", str(tmp_path / "text.txt")], "is no earlier export"),
        (["base", "--text", none, *out], f"{none} does not exist"),
        (["base", "--from-gguf", none, *out], f"No GGUF file '{none}'"),
        (["base", "--from-gguf", "package:a b", *out], "package:a b names no package"),
        (["base", "--text", str(tmp_path / "text.txt"), *foreign], "holds a config.json"),
    ]
    for (_, part), sentence in zip(
        expected, said_without_torch(*(argv for argv, _ in expected)), strict=True
    ):
        assert part in sentence


def test_a_bucket_is_no_place_for_a_base(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "text.txt").write_text("a small cat\n")
    argv = ["base", "--text", str(tmp_path / "text.txt"), "--out", "s3://bucket/base"]
    assert run("apps.train", COMMANDS, argv) == 2
    assert "is remote; expected a local path" in capsys.readouterr().err


def test_a_second_command_for_the_same_out_is_refused(
    small_base: Path, small_pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Before it changes anything there: two would delete each other's checkpoints."""
    (tmp_path / "text.txt").write_text("a small cat\n")
    out = tmp_path / "out"
    start = ["run", "--preset", "debug", "--max-length", "128", "--workers", "1"]
    with alone_in(str(out)):
        for argv in (
            [*start, "--base", str(small_base), "--data", str(small_pack)],
            ["base", "--text", str(tmp_path / "text.txt"), "--vocab-size", "300"],
        ):
            assert run("apps.train", COMMANDS, [*argv, "--out", str(out)]) == 2
            assert f"Another command is at work on {out}" in capsys.readouterr().err
    assert not out.exists() or not any(out.iterdir())
