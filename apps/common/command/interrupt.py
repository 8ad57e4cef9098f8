"""Imported first by every command: Ctrl-C while its modules load is one line, not a traceback."""

import sys
from types import TracebackType

SENTENCE = "Interrupted; run the same command again to go on."


def _say(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print(SENTENCE, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _say
