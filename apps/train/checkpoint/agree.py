"""Which checkpoint all ranks resume from: rank 0 lists them, every rank reads its share.

A rank that waits for another's reading would give it up after the collectives' timeout, and the
state of a 13B model is 156 GB: so the files are divided, and all ranks meet every few seconds.
"""

import threading
from collections.abc import Callable

import torch
import torch.distributed as dist

from apps.train.checkpoint.checkpoint import Candidate, Checkpoint, candidates, damage, first_whole

MEETING_S = 1.0
"""seconds between two signs of life while files are read"""


def newest(run_uri: str, verify: str, tell: Callable[[str], None]) -> Checkpoint | None:
    """As checkpoint.newest, by all ranks together; only rank 0 lists the storage and tells."""
    listed: list[list[Candidate] | None] = [
        list(candidates(run_uri)) if dist.get_rank() == 0 else None
    ]
    dist.broadcast_object_list(listed, src=0)
    say = tell if dist.get_rank() == 0 else lambda sentence: None
    return first_whole(listed[0] or [], lambda found: _damage(found, verify), say)


def _damage(found: Checkpoint, verify: str) -> str | None:
    """The first fault that a rank finds in its share of the files."""
    share = slice(dist.get_rank(), None, dist.get_world_size())
    outcome: list[str | Exception | None] = []

    def read() -> None:
        try:
            outcome.append(damage(found.uri, found.commit, verify, share))
        except Exception as error:
            outcome.append(error)

    reader = threading.Thread(target=read, name="verify", daemon=True)
    reader.start()
    num_reading = torch.ones(1)
    while num_reading:
        reader.join(MEETING_S)
        num_reading.fill_(reader.is_alive())
        dist.all_reduce(num_reading)
    outcomes: list[str | Exception | None] = [None] * dist.get_world_size()
    dist.all_gather_object(outcomes, outcome[0])
    first = next((found for found in outcomes if found is not None), None)
    if isinstance(first, Exception):
        raise first
    return first
