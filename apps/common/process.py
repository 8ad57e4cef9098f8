"""Child processes that never outlive their parent."""

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Generator, Mapping, Sequence

_PR_SET_PDEATHSIG = 1
_STOP_TIMEOUT_S = 20.0


@contextlib.contextmanager
def child(arguments: Sequence[str], env: Mapping[str, str]) -> Generator[subprocess.Popen[bytes]]:
    """Run a command for at most the length of the block.

    It has its own process group, so that Ctrl-C reaches it once and through us. When the block ends
    it gets SIGINT and, 20 s later, its whole group SIGKILL. When this process is killed, Linux
    sends it SIGTERM.
    """
    started = subprocess.Popen(
        list(arguments), env=dict(env), process_group=0, preexec_fn=_die_with_parent
    )
    try:
        yield started
    finally:
        stop(started)


def stop(running: subprocess.Popen[bytes]) -> None:
    """SIGINT, then SIGKILL to the group after 20 s; returns when the process is gone."""
    if running.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGINT)
        try:
            running.wait(_STOP_TIMEOUT_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
    running.wait()


def _die_with_parent() -> None:
    """Runs in the child between fork and exec; only Linux knows the call."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
