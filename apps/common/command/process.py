"""Child processes that never outlive their parent."""

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Generator, Mapping, Sequence
from typing import IO

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_STOP_TIMEOUT_S = 20.0


@contextlib.contextmanager
def child(
    arguments: Sequence[str], env: Mapping[str, str], log: IO[bytes] | None = None
) -> Generator[subprocess.Popen[bytes]]:
    """Run a command for at most the length of the block; what it prints goes to `log`, if given.

    It has its own process group, so that Ctrl-C reaches it once and through us. When the block ends
    it gets SIGINT and, 20 s later, its whole group SIGKILL. When this process is killed, Linux
    sends it SIGTERM.
    """
    with contextlib.ExitStack() as cleanup:
        with _interrupt_held():
            started = subprocess.Popen(
                list(arguments),
                env=dict(env),
                stdout=log,
                stderr=log,
                process_group=0,
                preexec_fn=_die_with_parent,
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


@contextlib.contextmanager
def _interrupt_held() -> Generator[None]:
    """Ctrl-C takes effect at the end of the block.

    Raised inside one of the hooks that Python runs around a fork it would be printed and dropped,
    and raised between fork and assignment it would leave a child that nobody stops.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python raises KeyboardInterrupt in the main thread only
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _die_with_parent() -> None:
    """Runs in the child between fork and exec; only Linux knows the call."""
    with contextlib.suppress(OSError, AttributeError):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
