"""Of two commands that train one run, the later one goes on and the earlier one stops writing.

A lock (files/lock.py) refuses the second command at once, but on this machine only: on a shared
disk it would outlive a machine that was taken away, and a bucket has none. So each command has the
number after that of the one before, leaves it in the run when its ranks start, and writes no
checkpoint where it finds a later one: clocks of two machines may differ, and only decide between
commands that began before either had ranks. (After Martin Kleppmann, "How to do distributed
locking", 2016; there the storage refuses an old token, here its holder does.)

    OUT/fence.json  {"token": "5f0c...", "host": "node-7", "number": 3, "started_s": 1796066152.6}
"""

import socket
from dataclasses import dataclass
from typing import TypedDict

import torch.distributed as dist

from apps.common.errors import InputError
from apps.common.files import storage

FENCE_NAME = "fence.json"


class Superseded(InputError):
    """Another command trains this run now."""


class _Held(TypedDict):
    token: str
    host: str
    number: int
    started_s: float


def next_number(run_uri: str) -> int:
    """For a command that begins now."""
    held = _held(run_uri)
    return 1 if held is None else _number(held) + 1


def _held(run_uri: str) -> _Held | None:
    uri = storage.join(run_uri, FENCE_NAME)
    return storage.read_json(uri) if storage.exists(uri) else None


def _number(held: _Held) -> int:
    return held.get("number", 0)  # 0: of a version that went by clocks alone


@dataclass(frozen=True, slots=True)
class Fence:
    """A command's hold on a run."""

    run_uri: str
    token: str = ""
    """empty where nobody else is expected: scripts and tests"""
    number: int = 0
    """one more than the command's before"""
    started_s: float = 0.0
    """Unix time at which the command was started"""

    def newer_host(self) -> str | None:
        """Machine of the command that has taken the run over; None where it is still ours."""
        held = _held(self.run_uri) if self.token else None
        if held is None or held["token"] == self.token:
            return None
        is_later = (_number(held), held["started_s"]) >= (self.number, self.started_s)
        return held["host"] if is_later else None

    def take(self) -> None:
        """Fence off whoever has written to the run before; a collective, as `check`."""
        self.check()
        if self.token and dist.get_rank() == 0:
            held = _Held(
                token=self.token,
                host=socket.gethostname(),
                number=self.number,
                started_s=self.started_s,
            )
            storage.write_json(storage.join(self.run_uri, FENCE_NAME), held)

    def check(self, group: dist.ProcessGroup | None = None) -> None:
        """A collective; raises Superseded on every rank where the run is another command's."""
        hosts = [self.newer_host() if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(hosts, src=0, group=group)
        if hosts[0] is not None:
            raise Superseded(
                f"Another command, started later on {hosts[0]}, trains {self.run_uri} now, so this "
                "one has stopped; run one at a time for each --out."
            )
