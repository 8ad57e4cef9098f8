"""`apps.serve place` as it is typed."""

from pathlib import Path

import pytest
import yaml

from apps.common.command.cli import run
from apps.common.files import config as configs
from apps.serve.__main__ import COMMANDS
from apps.serve.config import ServeConfig

SMALL = ["--traffic.minutes", "0.5", "--traffic.kind", "gamma", "--seconds", "2"]


def models_file(folder: Path, **changes: object) -> str:
    row = {"name": "vicuna", "path": "models/vicuna", "speed": "llama-7b", "share": 3}
    other = {**row, "name": "big", "speed": "llama-13b", "share": 1, **changes}
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": [row, other]}))
    return str(folder / "models.yaml")


def place(*arguments: str) -> int:
    return run("apps.serve", COMMANDS, ["place", *arguments])


def test_it_prints_what_run_takes(tmp_path: Path, capsys) -> None:
    assert place(models_file(tmp_path), "--gpus", "2xA100-80GB", "--explain", *SMALL) == 0
    printed = capsys.readouterr().out
    config = configs.from_dict(ServeConfig, yaml.safe_load(printed))
    assert {model.name for model in config.models} == {"vicuna", "big"}
    assert sum(m.replicas * m.resources.gpus for m in config.models) <= 2.01
    for said in ("# even replicas: ", "# greedy (AlpaServe): ", "# group 0: ", "of the requests"):
        assert said in printed


def test_it_writes_a_file(tmp_path: Path, capsys) -> None:
    out = tmp_path / "serve.yaml"
    assert place(models_file(tmp_path), "--gpus", "2xH100", "--out", str(out), *SMALL) == 0
    assert configs.load(ServeConfig, str(out)).models
    assert "place.done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--gpus", "8xTPU"], "--gpus is '8xTPU'"),
        (["--slo", "fast"], "expected for example ttft=2s,tpot=80ms"),
        (["--trace", "models.yaml"], "is no trace of requests"),
        (["--gpus", "1xA100-40GB", "--times", "0"], "times is 0"),
    ],
)
def test_what_cannot_be_is_a_sentence(tmp_path, monkeypatch, arguments, complaint, capsys) -> None:
    file = models_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert place(file, *SMALL, *arguments) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())


def test_a_model_without_a_speed_and_a_half_given_share_are_sentences(tmp_path, capsys) -> None:
    assert place(models_file(tmp_path, speed="gpt-5"), *SMALL) == 2
    assert "it has llama-13b" in capsys.readouterr().err
    assert place(models_file(tmp_path, share=None), *SMALL) == 2
    assert "give all, or none" in capsys.readouterr().err


def test_what_fits_nowhere_is_a_sentence(tmp_path, capsys) -> None:
    rows = [{"name": "huge", "path": "p", "speed": "llama-3-70b"}]
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": rows}))
    assert place(str(tmp_path / "models.yaml"), "--gpus", "1xA100-40GB", *SMALL) == 2
    assert "give more or larger GPUs" in capsys.readouterr().err
