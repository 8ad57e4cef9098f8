"""Of two commands that train one run, the later one goes on and the earlier one stops writing.

A lock (files/lock.py) refuses the second command at once, but on this machine only: on a shared
disk it would outlive a machine that was taken away, and a bucket has none. So each command leaves a
fencing token in the run when its ranks start, and writes no checkpoint where it finds a later one.
(After Martin Kleppmann, "How to do distributed locking", 2016; there the storage refuses an old
token, here its holder does.)

    OUT/fence.json     {"token": "5f0c...", "host": "node-7", "started_s": 1796066152.6}
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
    started_s: float


@dataclass(frozen=True, slots=True)
class Fence:
    """A command's hold on a run."""

    run_uri: str
    token: str = ""
    """empty where nobody else is expected: scripts and tests"""
    started_s: float = 0.0
    """Unix time at which the command was started"""

    def newer_host(self) -> str | None:
        """Machine of the command that has taken the run over; None where it is still ours."""
        uri = storage.join(self.run_uri, FENCE_NAME)
        if not self.token or not storage.exists(uri):
            return None
        held: _Held = storage.read_json(uri)
        is_later = held["token"] != self.token and held["started_s"] >= self.started_s
        return held["host"] if is_later else None

    def take(self) -> None:
        """Fence off whoever has written to the run before; a collective, as `check`."""
        self.check()
        if self.token and dist.get_rank() == 0:
            held = _Held(token=self.token, host=socket.gethostname(), started_s=self.started_s)
            storage.write_json(storage.join(self.run_uri, FENCE_NAME), held)

    def check(self, group: dist.ProcessGroup | None = None) -> None:
        """A collective; raises Superseded on every rank where the run is another command's."""
        hosts = [self.newer_host() if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(hosts, src=0, group=group)
        if hosts[0] is not None:
            raise Superseded(
                f"Another command, started later on {hosts[0]}, trains {self.run_uri} now, so this "
                "one has stopped; run one at a time for each --out. If none runs there any more, "
                f"its clock is ahead: delete {FENCE_NAME} and go on."
            )
