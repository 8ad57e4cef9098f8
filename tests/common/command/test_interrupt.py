"""Ctrl-C while a command's modules load."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from apps.common.command.interrupt import held_back

ROOT = Path(__file__).resolve().parents[3]
BARE = """
import apps.common.command.interrupt
raise KeyboardInterrupt
"""
IN_A_CLASS = """
import apps.common.command.interrupt

class Descriptor:
    def __set_name__(self, owner, name):
        raise KeyboardInterrupt

class Loads:
    field = Descriptor()
"""


@pytest.mark.parametrize("program", [BARE, IN_A_CLASS])
def test_it_is_one_line_wherever_it_comes(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "Interrupted; run the same command again to go on.\n"
    assert done.returncode in (130, -signal.SIGINT)


def test_another_error_keeps_its_traceback() -> None:
    program = "import apps.common.command.interrupt\nraise ValueError('no') from KeyError('why')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_signals_that_are_held_back_come_once_after_the_block() -> None:
    seen: list[str] = []
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt), held_back():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        seen.append("all of the block")
    assert seen == ["all of the block"]
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_a_thread_holds_nothing_back() -> None:
    failed: list[BaseException] = []

    def hold() -> None:
        try:
            with held_back():
                pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert not failed
