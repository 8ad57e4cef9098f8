"""Imported first by every command: Ctrl-C while its modules load is one line, not a traceback."""

import os
import sys
from types import TracebackType

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


sys.excepthook = _say
