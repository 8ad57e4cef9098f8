"""Every command of every app, as a newcomer meets it."""

import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from apps.__main__ import APPS
from apps.common.command import cli
from apps.common.command.cli import Command
from apps.common.version import VERSION

COMMANDS = {
    f"apps.{app} {name}": command
    for app in APPS
    for name, command in import_module(f"apps.{app}.__main__").COMMANDS.items()
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_opens_with_an_example_that_the_command_takes(name: str, capsys) -> None:
    program, _, word = name.partition(" ")
    command, taken = COMMANDS[name], []
    assert cli.run(program, {word: command}, [word, "--help"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"For example: python -m {name} {command.example}".rstrip()
    note = Command(
        config=command.config,
        run=lambda settings, reporter: taken.append(settings),
        help=command.help,
        presets=command.presets,
    )
    typed = shlex.split(first.partition(f"-m {program} ")[2])
    assert cli.run(program, {word: note}, typed) == 0, capsys.readouterr().err
    assert isinstance(taken[0], command.config)


def test_python_m_apps_lists_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "apps"],
        capture_output=True, text=True, check=True, timeout=60,
        cwd=Path(__file__).resolve().parents[1],
    )  # fmt: skip
    lines = [line.strip() for line in done.stdout.splitlines()]
    for name, command in COMMANDS.items():
        program, _, word = name.partition(" ")
        assert any(line.startswith(f"{program}: ") for line in lines)
        assert any(line.split(maxsplit=1) == [word, command.help] for line in lines), name


def test_every_program_tells_its_version(capsys) -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())
    assert project["project"]["version"] == VERSION
    for app in APPS:
        assert (
            cli.run(f"apps.{app}", import_module(f"apps.{app}.__main__").COMMANDS, ["--version"])
            == 0
        )
        assert capsys.readouterr().out == f"Cria {VERSION}\n"
