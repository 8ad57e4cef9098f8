"""How a process that asks for the same memory again and again keeps it.

By default glibc's malloc gives back what lies free at the end of the heap as soon as that is
128 KB, and takes what is larger than 32 MB as pages of its own. A worker that parses one message
after another then asks for the same pages again each time: 15,000 page faults a MB of HTML, and a
third of the time. A training step whose logits are 100 MB has 200,000 faults, and a seventh of the
time. So such a process keeps some of it (mallopt(3)).

Python's collector of cycles looks at all young objects after every 700 new ones, and at all objects
there are now and then. What a record is made of holds no cycles, and the looking costs a twentieth
of the time.
"""

import ctypes
import functools
import gc

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_RECORDS = (64 << 20, 32 << 20)
_TENSORS = (1 << 30, 1 << 30)
"""Free bytes at the end of the heap that stay with the process; bytes of a piece that gets pages of
its own. Once one threshold is set, glibc leaves the other at 128 KB, so both are."""
_YOUNG_OBJECTS, _YOUNG_ROUNDS, _MIDDLE_ROUNDS = 50_000, 20, 20
"""What has to come together before the collector looks (gc.set_threshold)."""


@functools.cache
def collect_rarely() -> None:
    """Once a process."""
    gc.set_threshold(_YOUNG_OBJECTS, _YOUNG_ROUNDS, _MIDDLE_ROUNDS)


def keep_freed_memory() -> bool:
    """Of a process that reads records; False where the C library has no such setting."""
    return _keep(*_RECORDS)


def keep_freed_tensors() -> bool:
    """Of a process that computes with large tensors on a CPU; False as above."""
    return _keep(*_TENSORS)


@functools.cache
def _keep(kept_bytes: int, mapped_bytes: int) -> bool:
    """Once a process."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    kept, mapped = ((_M_TRIM_THRESHOLD, kept_bytes), (_M_MMAP_THRESHOLD, mapped_bytes))
    return bool(mallopt(*kept)) and bool(mallopt(*mapped))
