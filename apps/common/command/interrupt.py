"""Imported first by every command: Ctrl-C while its modules load is one line, not a traceback."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Generator
from types import FrameType, TracebackType

SENTENCE = "Interrupted; run the same command again to go on."


def _say(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        print(SENTENCE, file=sys.stderr)
    elif _was_interrupted(error):
        print(SENTENCE, file=sys.stderr, flush=True)
        os._exit(130)  # as a shell says of Ctrl-C; Python would end with 1 here
    else:
        sys.__excepthook__(kind, error, traceback)


def _was_interrupted(error: BaseException) -> bool:
    """Python 3.11 makes a RuntimeError of what is raised while a class is being made."""
    cause = error.__cause__
    return cause is not None and (isinstance(cause, KeyboardInterrupt) or _was_interrupted(cause))


@contextlib.contextmanager
def held_back() -> Generator[None]:
    """SIGINT and SIGTERM come when the block has ended, the first of them at most.

    For an import that cleaning up needs: one that is cut off leaves half a module behind, and an
    extension module may swallow what a handler raises. And for the start of a child.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs handlers in the main thread
        return
    came: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        came.append(number)

    handlers = {number: signal.signal(number, keep) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


sys.excepthook = _say
# Blocked where process.py started this command: it comes now, if it came before.
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
