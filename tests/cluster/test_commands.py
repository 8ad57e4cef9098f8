"""Every command of the cluster files and their README, parsed by the app it is meant for."""

import os
import re
import runpy
import shlex
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from apps.common.command import cli
from apps.common.command.cli import Command
from apps.common.files import config

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
APPS = ("data", "train", "serve", "eval")


def scripts(path: Path) -> Iterator[str]:
    """The texts of a file in which commands stand."""
    if path.suffix == ".md":
        yield from re.findall(r"`([^`]+)`", path.read_text())
        yield path.read_text()
        return
    for content in yaml.safe_load_all(path.read_text()):
        yield content.get("run") or content.get("spec", {}).get("entrypoint", "")


def commands() -> list[tuple[str, str]]:
    """(file, `python -m apps...` as it stands) of everything under cluster/."""
    found = []
    for path in [*CLUSTER.rglob("*.yaml"), *CLUSTER.rglob("*.md")]:
        for script in scripts(path):
            script = script.replace("\\\n", " ")
            for line in re.findall(r"python -m apps\.\w[^`\n|]*", script):
                name = str(path.relative_to(ROOT))
                found.append((name, line.split("#")[0].strip().removesuffix("&&").strip()))
    return sorted(set(found))


@pytest.fixture(scope="module")
def tables() -> dict[str, Mapping[str, Command]]:
    """The command table of each app, taken from its own `__main__`."""
    found: dict[str, Mapping[str, Command]] = {}

    def take(prog: str, table: Mapping[str, Command], argv: object = None) -> int:
        found[prog.removeprefix("apps.")] = table
        return 0

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # runpy's, of a module that another test imported already
        patch.setattr(cli, "run", take)
        for app in APPS:
            with pytest.raises(SystemExit):
                runpy.run_module(f"apps.{app}", run_name="__main__")
    return found


def parse(table: Mapping[str, Command], prog: str, argv: list[str]) -> Any:
    """The settings that this command line gives; what it would run is not run."""
    parsed: list[Any] = []
    inert = {
        name: replace(command, run=lambda settings, _: parsed.append(settings))
        for name, command in table.items()
    }
    assert cli.run(prog, inert, argv) == 0
    (settings,) = parsed
    return settings


def expand(word: str) -> str:
    """A shell word with every variable replaced by a value of its kind."""
    numbers = {"MAX_USD": "20"}
    presets = {"PRESET": "vicuna-7b", "BASELINE": "gpt-4o-mini"}
    addresses = {"GATEWAY": "https://chat.example.org", "url": "http://10.0.0.7:8000/v1"}
    files = {"settings": os.devnull}
    known = numbers | presets | addresses | files
    return re.sub(r"\$\{?(\w+)\}?", lambda name: known.get(name[1], "s3://bucket/x"), word)


@pytest.mark.parametrize(("file", "line"), commands())
def test_the_command_parses(
    file: str, line: str, tables: dict[str, Mapping[str, Command]], capsys: pytest.CaptureFixture
) -> None:
    _, _, app, *argv = [expand(word) for word in shlex.split(line)]
    assert parse(tables[app.removeprefix("apps.")], app, argv), capsys.readouterr().err


def test_every_app_has_a_way_to_the_cloud() -> None:
    apps = {re.match(r"python -m apps\.(\w+)", line)[1] for _, line in commands()}  # type: ignore[index]
    assert apps == set(APPS)


def test_every_variable_of_a_task_is_declared() -> None:
    for path in CLUSTER.glob("*.yaml"):
        task = yaml.safe_load(path.read_text())
        if "run" not in task:
            continue
        given = {*task.get("envs", {}), *task.get("secrets", {}), "HOME", "PWD"}
        own = set(re.findall(r"^\s*(?:export )?(\w+)=", task["run"], re.M))
        used = set(re.findall(r"\$\{?([A-Za-z_]\w*)", task["run"]))
        assert {name for name in used - given - own if not name.startswith("SKYPILOT_")} == set()


@pytest.mark.parametrize("name", ["models.yaml", "models-head.yaml"])
def test_the_served_models_are_a_configuration_that_serve_accepts(name: str) -> None:
    from apps.serve.config import ServeConfig

    text = (CLUSTER / name).read_text().replace("SHA256_OF_THE_KEY", "0" * 64)
    text = text.replace("SHA256_OF_THE_PAGES", "1" * 64)
    text = text.replace("KEYS_FILE", "keys.yaml")
    served = config.from_dict(ServeConfig, yaml.safe_load(text))
    keys = {key.name: key for key in served.gateway.api_keys}
    assert keys["page"].has_limits and served.page.api_key_env == "CRIA_PAGE_KEY"
