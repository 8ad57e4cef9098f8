"""The demo's steps are public command lines; the whole run is in tests/e2e."""

import io
import math
import os
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import psutil
import pytest
import yaml

from apps.common.command import cli
from apps.common.command.events import Reporter
from apps.common.errors import ConfigError, CriaError
from apps.quickstart.__main__ import _serve_file, run_demo
from apps.quickstart.config import PACKAGE, TUNED_NAME, DemoConfig, dirs_of
from apps.quickstart.general import GeneralChat
from apps.quickstart.recipes import recipe_of
from apps.quickstart.runner import Runner, StepFailed
from apps.quickstart.steps import Step, steps_before_serving


def code(text: str, output: str, name: str, needs: tuple[str, ...] = ()) -> Step:
    """A step that runs Python code."""
    arguments = ("timeit", "-n1", "-r1", text)
    return Step(name=name, arguments=arguments, output=output, needs=needs)


def touch(path: str, marker: str, name: str = "touch", needs: tuple[str, ...] = ()) -> Step:
    return code(f"open({path!r}, 'a').write({marker!r})", path, name, needs)


def run(demo: DemoConfig, *steps: Step, reporter: Reporter | None = None) -> None:
    with Runner(demo, reporter or Reporter("json"), os.environ) as runner:
        runner.run(steps)


def test_a_finished_step_is_not_run_again_and_a_changed_one_is(tmp_path):
    demo, out = DemoConfig(dir=str(tmp_path)), str(tmp_path / "out")
    run(demo, touch(out, "a"))
    run(demo, touch(out, "a"))
    assert (tmp_path / "out").read_text() == "a"
    run(demo, touch(out, "b"))
    assert (tmp_path / "out").read_text() == "ab"


def test_a_step_is_run_again_when_its_output_is_gone(tmp_path):
    demo, out = DemoConfig(dir=str(tmp_path)), str(tmp_path / "out")
    run(demo, touch(out, "a"))
    (tmp_path / "out").unlink()
    run(demo, touch(out, "a"))
    assert (tmp_path / "out").read_text() == "a"


def test_a_changed_step_makes_those_that_need_it_run_again_and_no_others(tmp_path):
    demo = DemoConfig(dir=str(tmp_path))
    for marker in "ab":
        first = touch(str(tmp_path / "first"), marker)
        needs_it = touch(str(tmp_path / "second"), "s", name="second", needs=("touch",))
        alone = touch(str(tmp_path / "third"), "t", name="third")
        run(demo, first, needs_it, alone)
    assert (tmp_path / "second").read_text() == "ss"
    assert (tmp_path / "third").read_text() == "t"


def test_steps_run_side_by_side_unless_one_needs_the_other(tmp_path):
    """Each of the first two ends only when it has seen the other begin."""
    made = {name: tmp_path / name for name in ("left", "right", "both")}
    meet = "import pathlib,time\nopen({mine!r},'w').close()\n"
    meet += "while not pathlib.Path({other!r}).exists(): time.sleep(.01)"
    steps = [
        code(meet.format(mine=str(made[a]), other=str(made[b])), str(made[a]), name=a)
        for a, b in (("left", "right"), ("right", "left"))
    ]
    seen = (
        "import os; assert {{'left', 'right'}} <= set(os.listdir({stamps!r})); open({out!r}, 'w')"
    )
    demo = DemoConfig(dir=str(tmp_path))
    check = seen.format(stamps=str(tmp_path / "smollm2/.steps"), out=str(made["both"]))
    both = code(check, str(made["both"]), name="both", needs=("left", "right"))
    run(demo, both, *steps)
    assert made["both"].exists()


def test_what_needs_no_ray_begins_before_ray_runs_and_is_done_once(tmp_path):
    """`run` goes on with it, in the environment that came with Ray."""
    early = replace(touch(str(tmp_path / "early"), "e", name="early"), uses_ray=False)
    late_path = str(tmp_path / "late")
    say = f"import os; open({late_path!r}, 'w').write(os.environ['OF_RAY'])"
    late = code(say, late_path, name="late")
    after = touch(str(tmp_path / "after"), "a", name="after", needs=("early",))
    with Runner(DemoConfig(dir=str(tmp_path)), Reporter("json"), os.environ) as runner:
        runner.begin([late, after, early])
        while not (tmp_path / "early").exists():
            time.sleep(0.01)
        assert not Path(late_path).exists()
        runner.env["OF_RAY"] = "address"
        runner.run([late, after, early])
    assert (tmp_path / "early").read_text() == "e" and (tmp_path / "after").exists()
    assert Path(late_path).read_text() == "address"


def test_what_was_begun_ends_with_the_block(tmp_path):
    begun = tmp_path / "pid"
    forever = f"import os,time; print(os.getpid(), file=open({str(begun)!r}, 'w'), flush=True)"
    step = replace(code(forever + "\ntime.sleep(600)", "x", name="forever"), uses_ray=False)
    with Runner(DemoConfig(dir=str(tmp_path)), Reporter("json"), os.environ) as runner:
        runner.begin([step])
        while not (begun.exists() and begun.read_text()):
            time.sleep(0.01)
    assert not psutil.pid_exists(int(begun.read_text()))


def test_a_failed_step_leaves_no_stamp(tmp_path):
    demo = DemoConfig(dir=str(tmp_path), model="tiny")
    failing = Step(name="fail", arguments=("timeit", "-n1", "raise SystemExit(3)"), output="x")
    with pytest.raises(CriaError, match="Step 'fail' ended with exit code"):
        run(demo, failing)
    assert not (tmp_path / "tiny" / ".steps" / "fail").exists()


def test_a_failed_step_stops_the_one_beside_it(tmp_path):
    """At once, and what needs either is not begun."""
    begun, late = str(tmp_path / "begun"), str(tmp_path / "late")
    slow = code(f"import time; open({begun!r}, 'w'); time.sleep(600)", begun, name="slow")
    wait = f"import pathlib,time\nwhile not pathlib.Path({begun!r}).exists(): time.sleep(.01)\n"
    failing = code(wait + "raise SystemExit(3)", "x", name="fail")
    after = touch(late, "a", name="after", needs=("fail",))
    with pytest.raises(StepFailed, match="'fail'"):
        run(DemoConfig(dir=str(tmp_path)), slow, failing, after)
    assert not Path(late).exists()
    assert not (tmp_path / "smollm2/.steps/slow").exists()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_second_of_two_prints_when_it_ends(tmp_path, capfd):
    """The first has the terminal; what the other says comes whole, under its command."""
    out, terminal = str(tmp_path / "sample"), _Terminal()
    wait = f"import os,time\nwhile not os.path.exists({out + '/config.yaml'!r}): time.sleep(.01)"
    first = code(wait, "x", name="first")
    arguments = ("apps.data", "sample", "--out", out, "--conversations", "9", "--questions", "1")
    beside = Step(name="beside", arguments=arguments, output=out)
    demo = DemoConfig(dir=str(tmp_path))
    run(demo, first, beside, reporter=Reporter(stream=terminal))
    begun, ended = terminal.getvalue().split("ended after")
    assert f"$ python -m apps.data sample --out {out}" in begun
    assert "sample.done  records=" in ended
    assert "sample.done" not in capfd.readouterr().out


def test_on_a_terminal_the_reason_why_the_second_of_two_failed_is_shown(tmp_path):
    terminal = _Terminal()
    first = code("import time; time.sleep(600)", "x", name="first")
    arguments = ("apps.data", "sample", "--out", str(tmp_path), "--questions", "0")
    beside = Step(name="beside", arguments=arguments, output="x")
    with pytest.raises(StepFailed, match="'beside' ended with exit code 2"):
        run(DemoConfig(dir=str(tmp_path)), first, beside, reporter=Reporter(stream=terminal))
    assert "--questions is 0; expected at least 1" in terminal.getvalue()


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
        run(demo, missing)
    assert (failure.value.step, failure.value.code) == ("base", 2)
    assert failure.value.exit_code == 2


def test_arguments_for_a_base_that_is_not_made_are_refused():
    with pytest.raises(ConfigError, match="leave --base-args out"):
        DemoConfig(base="folder", base_args="--tokens 1000")


def test_arguments_with_an_open_quote_are_refused():
    with pytest.raises(ConfigError, match=r"--train-args is .*No closing quotation"):
        DemoConfig(train_args="--prompts 'Who are you?")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"dir": "{tmp}/file"}, "--dir .*file/tiny cannot be written"),
        ({"dir": "s3://bucket/demo"}, "expected a local path"),
        ({"dir": "{tmp}/demo", "base": "{tmp}/nowhere"}, "No model folder"),
    ],
)
def test_what_no_step_could_use_is_refused_before_any_begins(settings, sentence, tmp_path, capfd):
    (tmp_path / "file").touch()
    given = {name: value.format(tmp=tmp_path) for name, value in settings.items()}
    with pytest.raises(CriaError, match=sentence) as refused:
        run_demo(DemoConfig(model="tiny", **given), Reporter("json"))
    assert refused.value.exit_code == 2
    assert "apps.data" not in capfd.readouterr().out


def test_a_port_out_of_range_is_refused():
    with pytest.raises(ConfigError, match="--port is 0"):
        DemoConfig(port=0)
