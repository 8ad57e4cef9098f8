"""Ctrl-C and SIGTERM while ranks train: they save the step they are at, and the command ends.

Ray would take SIGINT for itself and end the ranks at once, but only in the main thread; so there
the signals are waited for, and Ray's call runs in a thread of its own.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn


def run_until_stopped(
    fit: Callable[[], object], ask: Callable[[], None], has_step: Callable[[], bool]
) -> int | None:
    """Run `fit` to its end; the signal after which `ask` was called once to bring that about.

    Before a step there is nothing to save, and a second signal does not wait: both raise
    KeyboardInterrupt or, for SIGTERM, SystemExit.
    """
    asked: list[int] = []
    errors: list[BaseException] = []

    def run_fit() -> None:
        try:
            fit()
        except BaseException as error:
            errors.append(error)

    def on_signal(number: int, frame: object) -> None:
        if asked or not has_step():
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        asked.append(number)
        ask()

    thread = threading.Thread(target=run_fit, name="fit", daemon=True)
    with _on_signals(on_signal):
        thread.start()
        thread.join()
    if errors:
        raise errors[0]
    return asked[0] if asked else None


def leave(number: int, step: int, num_steps: int) -> NoReturn:
    """Say where the run stands and exit as a shell expects after that signal."""
    print(
        f"Stopped after step {step:,} of {num_steps:,}, which is saved; run the same command again "
        "to go on.",
        file=sys.stderr,
    )
    sys.exit(128 + number)


@contextlib.contextmanager
def _on_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return
    before = {n: signal.signal(n, handler) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
