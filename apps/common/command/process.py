"""Child processes that never outlive their parent."""

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Generator, Mapping, Sequence
from typing import IO

from apps.common.command import interrupt

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_STOP_TIMEOUT_S = 20.0


@contextlib.contextmanager
def child(
    arguments: Sequence[str], env: Mapping[str, str], log: IO[bytes] | None = None
) -> Generator[subprocess.Popen[bytes]]:
    """Run a command of ours, one that imports apps.common.command.interrupt, for at most the length
    of the block; what it prints goes to `log`, if given.

    It has its own process group, so that Ctrl-C reaches it once and through us. When the block ends
    it gets SIGINT and, 20 s later, its whole group SIGKILL. When this process is killed, Linux
    sends it SIGTERM.
    """
    with contextlib.ExitStack() as cleanup:
        # Raised in a hook that Python runs around a fork, it would be printed and dropped; raised
        # between fork and assignment, it would leave a child that nobody stops.
        with interrupt.held_back():
            started = subprocess.Popen(
                list(arguments),
                env=dict(env),
                stdout=log,
                stderr=log,
                process_group=0,
                preexec_fn=_begin,
            )
            cleanup.callback(stop, started)
        yield started


def stop(running: subprocess.Popen[bytes]) -> None:
    """SIGINT, then SIGKILL to the group after 20 s; returns when the process is gone."""
    if running.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGINT)
        try:
            running.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            _kill(running)
        except KeyboardInterrupt:
            _kill(running)
            raise
    running.wait()


def _kill(running: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    running.wait()


def _begin() -> None:
    """Runs in the child between fork and exec.

    Ctrl-C waits until the command has imported apps.common.command.interrupt: a Python that gets it
    while it starts would end in a traceback. Only Linux knows the death signal.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with contextlib.suppress(OSError, AttributeError):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
