"""What the commands look at before anything starts."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from apps.common.command.events import Reporter
from apps.common.errors import ConfigError, InputError
from apps.serve import __main__ as commands
from apps.serve.__main__ import BuildConfig, RunConfig, build, run
from tests.serve.service_files import file_of, two

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_folders_are_served_without_a_file(tmp_path: Path, model_folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    two = ("other=" + str(model_folder), f"{model_folder}/")
    config = commands._load_to_run(RunConfig(what=two, port=0))
    assert [model.name for model in config.models] == ["other", model_folder.name]
    assert {model.path for model in config.models} == {str(model_folder)}
    assert config.page.database_url == f"sqlite:///{tmp_path}/page.db"


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ((), "There is nothing to serve"),
        (("FOLDER", "FOLDER"), "occurs more than once"),
        (("FOLDER", "not/there"), "not/there is no model folder"),
        (("a.yaml", "b.yaml"), "a.yaml is no model folder; give one YAML file"),
        (("mine=not/there",), "mine=not/there does not exist"),
        (("a name=FOLDER",), "Model name 'a name' is not usable"),
    ],
)
def test_what_cannot_be_served_is_told(
    model_folder: Path, what: tuple[str, ...], sentence: str
) -> None:
    given = tuple(one.replace("FOLDER", str(model_folder)) for one in what)
    with pytest.raises(InputError, match=sentence):
        commands._load_to_run(RunConfig(what=given))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"page": {"login_password_env": "NOT_SET"}}, "login_password_env names NOT_SET, which is"),
        (
            {"gateway": {"keys_file": "keys.yaml"}, "page": {"enabled": False}},
            r"keys\.yaml, which does not exist; make it with `python -m apps\.serve keys add NAME",
        ),
        (
            {
                "gateway": {"api_keys": [{"name": "me", "sha256": "0" * 64}]},
                "page": {"api_key_env": "NOT_SET"},
            },
            r"page\.api_key_env names NOT_SET, which is not set; put the page's key there",
        ),
        (
            {
                "models": [
                    {
                        "name": "far",
                        "engine": "remote",
                        "options": {
                            "base_url": "http://127.0.0.1:9/v1",
                            "model": "m",
                            "api_key_env": "NOT_SET",
                        },
                    }
                ]
            },
            "Model 'far': environment variable NOT_SET with the key is not set",
        ),
    ],
)
def test_a_secret_that_is_not_set_is_told_before_anything_starts(
    tmp_path: Path, model_folder: Path, monkeypatch, capsys, more: dict, sentence: str
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    path = Path(file_of(tmp_path, model_folder))
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **more}))
    build(BuildConfig(file=str(path)), Reporter("json"))
    with pytest.raises(ConfigError, match=sentence):
        run(RunConfig(what=(str(path),), port=0), Reporter("json"))


@pytest.fixture
def secret_file(tmp_path: Path, model_folder: Path, monkeypatch) -> Path:
    """Its page's database is named by a variable that is not set."""
    monkeypatch.delenv("CRIA_DATABASE_URL", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    path = Path(file_of(tmp_path, model_folder))
    with_page(path, enabled=True)
    return path


def with_page(path: Path, *, enabled: bool) -> None:
    page = {"enabled": enabled, "database_url_env": "CRIA_DATABASE_URL"}
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "page": page}))


def test_the_database_s_secret_is_asked_for_only_where_the_page_will_run(
    secret_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(BuildConfig(file=str(secret_file)), Reporter("json"))
    printed = yaml.safe_load(capsys.readouterr().out)
    assert "page" in [app["name"] for app in printed["applications"]]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = RunConfig(what=(str(secret_file),), port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match=r"database_url_env names CRIA_DATABASE_URL, which"):
            run(settings, Reporter("json"))
        with_page(secret_file, enabled=False)
        with pytest.raises(ConfigError, match="Cannot listen on"):
            run(settings, Reporter("json"))


def test_a_page_that_is_switched_on_without_its_secret_is_refused(
    secret_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Told(Exception):
        pass

    class FirstEvent(Reporter):
        def event(self, name: str, **fields: object) -> None:
            raise Told(name, fields["reason"])

    stamps = iter([(0, 0), (1, 0)])
    monkeypatch.setattr(commands, "_stamp", lambda _: next(stamps))
    monkeypatch.setattr(commands, "_WATCH_S", 0.0)
    with pytest.raises(Told, match=r"serve\.refused.*CRIA_DATABASE_URL"):
        commands._follow_file(
            RunConfig(what=(str(secret_file),)), two(secret_file.parent), FirstEvent("json")
        )


def test_build_prints_what_serve_deploy_takes(tmp_path: Path, model_folder: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    command = [sys.executable, "-m", "apps.serve", "build", file_of(tmp_path, model_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    schema = ServeDeploySchema.model_validate(yaml.safe_load(done.stdout))
    assert [app.name for app in schema.applications] == ["gateway", "model-one", "page"]


def test_a_file_that_is_wrong_ends_the_command_with_2_and_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(json.dumps({"models": []}))
    command = [sys.executable, "-m", "apps.serve", "run", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0 and "models is empty" in done.stderr


def test_a_port_that_is_taken_ends_the_command_before_anything_starts(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Cannot listen on 127.0.0.1:{port} .*--port"):
            run(RunConfig(what=(file_of(tmp_path, model_folder),), port=port), Reporter("json"))


def test_an_address_of_another_machine_is_told_from_a_port_that_is_taken(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for host in ("no-such-host.invalid", "198.51.100.7"):
        file = tmp_path / "serve.yaml"
        models = [{"name": "one", "path": str(model_folder)}]
        file.write_text(yaml.safe_dump({"models": models, "gateway": {"host": host}}))
        with pytest.raises(ConfigError, match=f"Cannot listen on {host}.*set gateway.host to"):
            run(RunConfig(what=(str(file),)), Reporter("json"))


def test_a_database_in_no_folder_is_refused_before_anything_starts(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    file = tmp_path / "serve.yaml"
    models = [{"name": "one", "path": str(model_folder)}]
    page = {"database_url": "sqlite:///not/there/page.db?timeout=9"}
    file.write_text(yaml.safe_dump({"models": models, "page": page}))
    with pytest.raises(ConfigError, match="not/there does not exist or takes"):
        run(RunConfig(what=(str(file),), port=0), Reporter("json"))
