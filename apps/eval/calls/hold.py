"""Which run may send calls of a judgments folder or ask a model, on a disk or in a bucket.

On a disk a lock says so, which ends with its process. A bucket has none: there every run leaves a
claim, judgments/runs/<time>-<run>, and one that finds a newer claim stops. Nothing is sent twice
unseen: a run reads the journal after its claim, and looks for newer claims between writing an
intent and sending. So either the older run sees the claim and sends nothing, or the newer one sees
the intent and counts it. Answers have no intents: there a run looks before it stores one.
"""

import fcntl
import os
import time
import uuid
from typing import Protocol

from apps.common.errors import InputError
from apps.common.files import storage


class Hold(Protocol):
    """One run's right to a judgments folder."""

    def check(self) -> None:
        """InputError once another run has taken the folder."""
        ...

    def release(self) -> None: ...


def hold(folder: str, patience_s: float = 20.0) -> Hold:
    """Takes a judgments folder for this run.

    A killed run's writer may outlive its driver by some seconds, hence the patience.
    """
    doing = f"judging {folder.rpartition('/')[0]}"
    if not storage.is_local(folder):
        return _Claim(storage.join(folder, "runs"), doing)
    return _Lock(storage.join(folder, ".lock"), patience_s, doing)


def hold_answers(uri: str, model: str, patience_s: float = 1.0) -> Hold:
    """Takes a model's file of answers for this run; in a bucket, answers/<model>.runs is asked."""
    doing = f"asking {model} for {uri}"
    if not storage.is_local(uri):
        return _Claim(f"{uri.removesuffix('.jsonl')}.runs", doing)
    return _Lock(f"{uri.removesuffix('.jsonl')}.lock", patience_s, doing)


class _Lock:
    def __init__(self, uri: str, patience_s: float, doing: str) -> None:
        path = storage.local_path(uri)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self._descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
        deadline_s = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    os.close(self._descriptor)
                    raise InputError(
                        f"another run is {doing}; wait for it, or stop it, and run again"
                    ) from None
                time.sleep(0.2)

    def check(self) -> None:
        """The lock is ours for as long as it is open."""

    def release(self) -> None:
        os.close(self._descriptor)


class _Claim:
    """The newest name wins, whatever the clocks of two machines say."""

    def __init__(self, runs: str, doing: str) -> None:
        self._runs, self._doing = runs, doing
        newest = max(storage.list_dir(self._runs), default="0-")
        at_ns = max(time.time_ns(), int(newest.partition("-")[0]) + 1)
        self._name = f"{at_ns:020d}-{uuid.uuid4().hex[:8]}"
        storage.write_atomic(storage.join(self._runs, self._name), b"")

    def check(self) -> None:
        if max(storage.list_dir(self._runs)) > self._name:
            raise InputError(
                f"Another run has begun {self._doing}, and goes on with what this one has stored; "
                "this one stops."
            )

    def release(self) -> None:
        """The claim stays: the next run's is newer."""
