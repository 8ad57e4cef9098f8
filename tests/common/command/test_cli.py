import json
import os
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
import tyro

from apps.common.command import cli
from apps.common.errors import ConfigError, InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Optim:
    lr: float = 1e-3
    fused: bool = True
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    inputs: tyro.conf.Positional[tuple[str, ...]]
    out: str
    steps: int = 1
    tags: tuple[str, ...] = ()
    limit: int | None = None
    optim: Optim = field(default_factory=Optim)

    def __post_init__(self):
        if self.steps < 1:
            raise ConfigError(f"--steps is {self.steps}; expected at least 1.")


def small() -> Settings:
    return Settings(inputs=(), out="-", steps=5, tags=("a", "b"), optim=Optim(fused=False))


def run_command(argv, run):
    command = cli.Command(config=Settings, run=run, help="do it", presets={"small": small})
    return cli.run("apps.test", {"go": command}, ["go", *argv])


def parse(argv):
    seen = []
    return run_command(argv, lambda settings, reporter: seen.append(settings)), seen


def test_later_sources_override_earlier_ones(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("steps: 7\noptim: {lr: 0.5}\n")
    code, seen = parse(["x", "y", "--out", "o", "--preset", "small", "--config", str(file)])
    assert code == 0
    assert seen[0] == Settings(
        inputs=("x", "y"), out="o", steps=7, tags=("a", "b"), optim=Optim(lr=0.5, fused=False)
    )
    _, seen = parse(["x", "--out", "o", "--preset=small", "--config", str(file), "--steps", "9"])
    assert seen[0].steps == 9


def test_a_value_of_a_file_may_begin_with_a_dash(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("out: --steps\noptim: {lr: -1.5}\nlimit: null\n")
    code, seen = parse(["x", "--config", str(file)])
    assert code == 0 and (seen[0].out, seen[0].optim.lr, seen[0].limit) == ("--steps", -1.5, None)


@pytest.mark.parametrize(
    "typed", ["--tags c --tags d", "--tags c d", "--tags=c --tags=d", "--tags c --steps 2 --tags d"]
)
def test_a_flag_that_is_given_twice_adds_to_its_list(tmp_path, typed):
    file = tmp_path / "c.yaml"
    file.write_text("tags: [a]\n")
    code, seen = parse(["x", "--out", "o", "--config", str(file), *typed.split()])
    assert code == 0 and seen[0].tags == ("c", "d") and seen[0].inputs == ("x",)
    _, seen = parse(["--out", "o", *typed.split(), "--", "--x", "y"])
    assert seen[0].tags == ("c", "d") and seen[0].inputs == ("--x", "y")
    _, seen = parse(["x", "--out", "o", "--optim.names", "e", "--optim.names", "f"])
    assert seen[0].optim.names == ("e", "f")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["x", "--out", "o", "--steps", "0"], "--steps is 0; expected at least 1."),
        (
            ["x", "--out", "o", "--stepz", "3"],
            "Unrecognized options: --stepz, 3; perhaps you meant: --s",
        ),
        (["x", "--out", "o", "--steps", "three"], "'three'; expected --steps INT"),
        (["x"], "--out"),
        (["x", "--out", "o", "--preset", "big"], "Preset 'big' is unknown; presets"),
        (["x", "--out", "o", "--log-format", "xml"], "--log-format is 'xml'"),
        (
            ["x", "--out", "o", "--config", "/nowhere.yaml"],
            "apps.test: /nowhere.yaml does not exist",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(argv, sentence, capsys):
    code, seen = parse(argv)
    assert code == 2 and not seen
    assert sentence in capsys.readouterr().err


def test_an_unknown_yaml_key_is_refused(tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text("stepz: 7\n")
    assert parse(["x", "--out", "o", "--config", str(file)])[0] == 2
    assert "did you mean 'steps'" in capsys.readouterr().err
    file.write_text("optim: {lrr: 7}\n")
    assert parse(["x", "--out", "o", "--config", str(file)])[0] == 2
    assert "Setting 'optim.lrr' is unknown; did you mean 'lr'" in capsys.readouterr().err


def test_an_unknown_command_names_the_valid_ones(capsys):
    command = cli.Command(config=Settings, run=lambda s, r: None, help="do it")
    assert cli.run("apps.test", {"go": command}, ["fly"]) == 2
    assert "'fly' is not a command of apps.test; expected one of go." in capsys.readouterr().err


def test_a_wrapped_error_keeps_its_sentence_and_code(capsys):
    class TaskError(Exception):
        def __init__(self, cause):
            super().__init__("long remote traceback")
            self.cause = cause

    def fail(settings, reporter):
        raise TaskError(InputError("No such bucket."))

    assert run_command(["x", "--out", "o"], fail) == 2
    assert capsys.readouterr().err == "apps.test: No such bucket.\n"


def test_a_file_that_may_not_be_opened_is_one_sentence(tmp_path, capsys):
    def run(settings, reporter):
        raise PermissionError(13, "Permission denied", str(tmp_path / "model.safetensors"))

    assert run_command(["x", "--out", "o"], run) == 2
    told = capsys.readouterr().err
    assert "model.safetensors may not be opened by this user" in told and "Traceback" not in told


def test_a_defect_is_exit_code_1_with_its_traceback(capsys):
    def fail(settings, reporter):
        raise RuntimeError("boom")

    assert run_command(["x", "--out", "o"], fail) == 1
    assert "RuntimeError: boom" in capsys.readouterr().err


def test_events_are_json_lines_when_nobody_watches(capsys):
    def work(settings, reporter):
        with reporter.progress("clean", total=2, unit="records") as bar:
            bar.advance(2, kept=1)
        reporter.event("clean.done", kept=1)

    assert run_command(["x", "--out", "o"], work) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["clean.progress", "clean.done"]
    assert lines[0]["done"] == 2 and lines[0]["unit"] == "records" and lines[0]["kept"] == 1


@pytest.mark.parametrize("arguments", [["data", "clean", "--help"], ["train", "run", "--help"]])
@pytest.mark.parametrize("closed", ["before", "after a line"])
def test_output_that_nobody_reads_to_its_end_is_no_fault(arguments, closed):
    command = [sys.executable, "-m", f"apps.{arguments[0]}", *arguments[1:]]
    reader, writer = os.pipe()
    if closed == "before":
        os.close(reader)
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True) as running:
        os.close(writer)
        if closed != "before":
            assert os.read(reader, 16).startswith(b"For example: ")
            os.close(reader)
        assert running.stderr.read() == ""
    assert running.returncode in ((141,) if closed == "before" else (0, 141))


def test_a_broken_connection_of_a_command_is_still_told(capsys):
    def fail(settings, reporter):
        raise BrokenPipeError("the bucket hung up")

    assert run_command(["x", "--out", "o"], fail) == 1
    assert "the bucket hung up" in capsys.readouterr().err
