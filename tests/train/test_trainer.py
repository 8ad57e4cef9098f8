"""The wiring's own decisions; what Ray does with them is in test_chaos.py."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from ray.train import PreemptionInfo

from apps.common.events import Reporter
from apps.train import shown, trainer


@pytest.fixture
def notice(monkeypatch):
    """Sets what Ray says of a preemption."""
    said: list[PreemptionInfo | None] = [None]
    monkeypatch.setattr("ray.train.get_preemption_info", lambda: said[0])

    def give(deadline_ms: int | None) -> None:
        said[0] = PreemptionInfo(deadline_ms=deadline_ms, preempted_node_to_ranks={"a": [1]})

    return give


def test_a_notice_is_answered_once_and_a_new_one_again(notice) -> None:
    preemption = trainer._Preemption()
    assert not preemption.is_near()
    for deadline_ms in (1_000, 2_000):
        notice(deadline_ms)
        assert preemption.is_near()
        assert not preemption.is_near()


def test_a_notice_without_a_deadline_is_answered_and_training_goes_on(notice) -> None:
    preemption = trainer._Preemption()
    notice(None)
    assert preemption.is_near()
    started_s = time.monotonic()
    preemption.wait()
    assert time.monotonic() - started_s < 1
    assert not preemption.is_near()


@pytest.fixture
def stopped():
    """Send signals to this process while it waits for a `fit` that never ends; what came of it."""

    def send(*numbers: int, steps: list[dict]) -> list[str]:
        asked: list[str] = []
        reporter = Reporter("json")
        relay = SimpleNamespace(stop=SimpleNamespace(remote=lambda: asked.append("stop")))

        def signals() -> None:
            for number in numbers:
                time.sleep(0.1)
                os.kill(os.getpid(), number)

        with reporter.progress("train") as bar:
            seen = shown.Shown(reporter, bar, 0)
            seen.take([("step", record) for record in steps])
            threading.Thread(target=signals).start()
            with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
                trainer._until_stopped(threading.Event().wait, relay, seen, reporter)
        return [*asked, repr(caught.value)]

    return send


def test_before_the_first_step_nothing_is_waited_for(stopped) -> None:
    assert stopped(signal.SIGINT, steps=[]) == ["KeyboardInterrupt()"]
    assert stopped(signal.SIGTERM, steps=[]) == ["SystemExit(143)"]


def test_a_second_signal_does_not_wait_for_the_checkpoint(stopped) -> None:
    steps = [{"step": 1, "loss": 1.0}]
    assert stopped(signal.SIGTERM, signal.SIGINT, steps=steps) == ["stop", "KeyboardInterrupt()"]
