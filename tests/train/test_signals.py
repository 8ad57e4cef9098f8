"""Signals to this process while it waits for training; with real ranks in test_chaos_short.py."""

import os
import signal
import threading
import time

import pytest

from apps.train.signals import leave, run_until_stopped


def after_signals(*numbers: int, has_step: bool) -> list[str]:
    """What comes of signals during a `fit` that ends 0.3 s after it is asked to."""
    said: list[str] = []
    asked = threading.Event()

    def send() -> None:
        for number in numbers:
            time.sleep(0.1)
            os.kill(os.getpid(), number)

    def fit() -> None:
        asked.wait()
        time.sleep(0.3)

    def ask() -> None:
        said.append("asked")
        asked.set()

    threading.Thread(target=send).start()
    try:
        came = run_until_stopped(fit, ask, lambda: has_step)
        return [*said, str(came)]
    except (KeyboardInterrupt, SystemExit) as end:
        asked.set()
        return [*said, repr(end)]


def test_the_first_signal_after_a_step_asks_and_waits() -> None:
    assert after_signals(signal.SIGTERM, has_step=True) == ["asked", "15"]
    assert after_signals(signal.SIGINT, has_step=True) == ["asked", "2"]


def test_before_the_first_step_nothing_is_waited_for() -> None:
    assert after_signals(signal.SIGINT, has_step=False) == ["KeyboardInterrupt()"]
    assert after_signals(signal.SIGTERM, has_step=False) == ["SystemExit(143)"]


def test_a_second_signal_does_not_wait_for_the_checkpoint() -> None:
    ends = after_signals(signal.SIGTERM, signal.SIGINT, has_step=True)
    assert ends == ["asked", "KeyboardInterrupt()"]


def test_an_error_of_training_comes_through() -> None:
    def fit() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run_until_stopped(fit, lambda: None, lambda: True)


def test_leaving_says_what_is_saved(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        leave(signal.SIGINT, 1_200, 3_210)
    assert end.value.code == 130
    assert "Stopped after step 1,200 of 3,210, which is saved" in capsys.readouterr().err
