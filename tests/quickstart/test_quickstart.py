"""The demo's steps are public command lines; the whole run is in tests/e2e."""

import math
import os
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from apps.common.command import cli
from apps.common.command.events import Reporter
from apps.common.errors import ConfigError, CriaError
from apps.quickstart.__main__ import _serve_file
from apps.quickstart.config import PACKAGE, TUNED_NAME, DemoConfig, dirs_of
from apps.quickstart.general import GeneralChat
from apps.quickstart.recipes import recipe_of
from apps.quickstart.runner import Runner, StepFailed
from apps.quickstart.steps import Step, steps_before_serving


def touch(path: str, marker: str) -> Step:
    code = f"open({path!r}, 'a').write({marker!r})"
    return Step(name="touch", arguments=("timeit", "-n1", "-r1", code), output=path)


def runner(demo: DemoConfig) -> Runner:
    return Runner(demo, Reporter("json"), env=dict(os.environ))


def test_a_finished_step_is_not_run_again_and_a_changed_one_is(tmp_path):
    demo, out = DemoConfig(dir=str(tmp_path)), str(tmp_path / "out")
    runner(demo).run(touch(out, "a"))
    runner(demo).run(touch(out, "a"))
    assert (tmp_path / "out").read_text() == "a"
    runner(demo).run(touch(out, "b"))
    assert (tmp_path / "out").read_text() == "ab"


def test_a_step_is_run_again_when_its_output_is_gone(tmp_path):
    demo, out = DemoConfig(dir=str(tmp_path)), str(tmp_path / "out")
    runner(demo).run(touch(out, "a"))
    (tmp_path / "out").unlink()
    runner(demo).run(touch(out, "a"))
    assert (tmp_path / "out").read_text() == "a"


def test_a_step_after_a_changed_one_is_run_again(tmp_path):
    demo, first, second = DemoConfig(dir=str(tmp_path)), *(str(tmp_path / n) for n in "xy")
    for marker in "ab":
        both = runner(demo)
        both.run(touch(first, marker))
        both.run(Step(name="second", arguments=touch(second, "s").arguments, output=second))
    assert (tmp_path / "y").read_text() == "ss"


def test_a_failed_step_leaves_no_stamp(tmp_path):
    demo = DemoConfig(dir=str(tmp_path), model="tiny")
    failing = Step(name="fail", arguments=("timeit", "-n1", "raise SystemExit(3)"), output="x")
    with pytest.raises(CriaError, match="Step 'fail' ended with exit code"):
        runner(demo).run(failing)
    assert not (tmp_path / "tiny" / ".steps" / "fail").exists()


def test_every_base_model_has_its_own_folder_and_a_given_one_is_not_made():
    other, tiny = DemoConfig(base="org/Model-7B"), DemoConfig(model="tiny")
    assert dirs_of(other)["run"] == "demo/base-org-Model-7B/run"
    assert len({dirs_of(demo)["run"] for demo in (other, tiny, DemoConfig())}) == 3
    assert "base" not in [step.name for step in steps_before_serving(other)]
    made = [step.arguments for step in steps_before_serving(DemoConfig()) if step.name == "base"]
    assert made[0][2:4] == ("--from-gguf", PACKAGE)
    assert "base" in [step.name for step in steps_before_serving(tiny)]


@pytest.mark.parametrize("model", ["smollm2", "tiny"])
def test_every_step_is_a_command_that_its_app_takes(model):
    taken: list[object] = []
    steps = steps_before_serving(DemoConfig(model=model))
    for step in steps:
        program = step.arguments[0]
        known = import_module(f"{program}.__main__").COMMANDS
        commands = {
            name: replace(command, run=lambda config, _: taken.append(config))
            for name, command in known.items()
        }
        assert cli.run(program, commands, step.arguments[1:]) == 0
    assert len(taken) == len(steps)


@pytest.mark.parametrize("model", ["smollm2", "tiny"])
def test_the_page_shows_where_the_tuned_model_s_answers_came_from(model, tmp_path):
    demo = DemoConfig(dir=str(tmp_path), model=model)
    index = next(step for step in steps_before_serving(demo) if step.name == "index")
    assert index.arguments[2] == dirs_of(demo)["pack"]
    (tmp_path / model / "sample").mkdir(parents=True)
    (tmp_path / model / "sample" / "questions.jsonl").write_text(
        '{"question_id": "q", "category": "limits", "turns": ["Why?"]}\n'
    )
    page = yaml.safe_load(Path(_serve_file(demo, recipe_of(demo))).read_text())["page"]
    assert page["sources"] == {TUNED_NAME: index.output}


def test_the_everyday_answers_are_weighed_by_the_base_s_own():
    chat = GeneralChat(num_questions=2, log_likelihood={"base": -0.5, "cria-tuned": -0.6})
    assert chat.kept == pytest.approx(math.exp(-0.1))


def test_a_step_that_fails_says_which_and_how(tmp_path):
    demo = DemoConfig(dir=str(tmp_path))
    missing = Step(name="base", arguments=("apps.train", "base", "--out", "x"), output="x")
    with pytest.raises(StepFailed) as failure:
        runner(demo).run(missing)
    assert (failure.value.step, failure.value.code) == ("base", 2)


def test_arguments_for_a_base_that_is_not_made_are_refused():
    with pytest.raises(ConfigError, match="leave --base-args out"):
        DemoConfig(base="folder", base_args="--tokens 1000")


def test_a_port_out_of_range_is_refused():
    with pytest.raises(ConfigError, match="--port is 0"):
        DemoConfig(port=0)
