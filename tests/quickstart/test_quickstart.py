"""The demo's steps are public command lines; the whole run is in tests/e2e."""

import pytest

from apps.common.command.events import Reporter
from apps.common.errors import ConfigError, CriaError
from apps.quickstart.runner import Runner
from apps.quickstart.steps import DemoConfig, Step, places, steps_before_serving


def touch(path: str, marker: str) -> Step:
    code = f"open({path!r}, 'a').write({marker!r})"
    return Step(name="touch", arguments=("timeit", "-n1", "-r1", code), output=path)


def runner(demo: DemoConfig) -> Runner:
    return Runner(demo, Reporter("json"), env={})


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
    demo = DemoConfig(dir=str(tmp_path))
    failing = Step(name="fail", arguments=("timeit", "-n1", "raise SystemExit(3)"), output="x")
    with pytest.raises(CriaError, match="Step 'fail' ended with exit code"):
        runner(demo).run(failing)
    assert not (tmp_path / ".steps" / "fail").exists()


def test_another_base_model_has_its_own_folder_and_no_pretraining():
    other = DemoConfig(base="org/Model-7B")
    assert places(other)["run"] == "demo/base-org-Model-7B/run"
    assert "base" not in [step.name for step in steps_before_serving(other)]
    assert "base" in [step.name for step in steps_before_serving(DemoConfig())]


def test_a_port_out_of_range_is_refused():
    with pytest.raises(ConfigError, match="--port is 0"):
        DemoConfig(port=0)
