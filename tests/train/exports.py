"""Runs that are trained in this process, and their exports."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from apps.common.command.cli import run
from apps.train import preflight
from apps.train.__main__ import COMMANDS
from apps.train.config import RunConfig
from apps.train.loop.worker import process_group, work
from tests.train.ranks import rows_of


def finished(config: RunConfig) -> RunConfig:
    """Train it in this process as the command would."""
    prepared = preflight.prepare(config)
    with process_group():
        work(prepared.config, rows_of(config), commit=prepared.commit)
    return prepared.config


def exported(config: RunConfig, out: Path, *flags: str) -> Path:
    assert run("apps.train", COMMANDS, ["export", config.out, "--out", str(out), *flags]) == 0
    return out


def loaded(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run("apps.train", COMMANDS, argv) == 2
    return capsys.readouterr().err
