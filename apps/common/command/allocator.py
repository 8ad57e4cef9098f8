"""How a process that works through many small things keeps its memory.

By default glibc's malloc gives back what lies free at the end of the heap as soon as that is
128 KB. A worker that parses one message after another then asks for the same pages again each time:
15,000 page faults a MB of HTML, and a third of the time. So such a process keeps some of it
(mallopt(3)).

Python's collector of cycles looks at all young objects after every 700 new ones, and at all objects
there are now and then. What a record is made of holds no cycles, and the looking costs a twentieth
of the time.
"""

import ctypes
import functools
import gc

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 64 << 20
"""Free memory at the end of the heap that stays with the process."""
_MAPPED_BYTES = 32 << 20
"""What is larger gets pages of its own, and gives them back. Once one threshold is set, glibc
leaves the other at 128 KB, so both are."""
_YOUNG_OBJECTS, _YOUNG_ROUNDS, _MIDDLE_ROUNDS = 50_000, 20, 20
"""What has to come together before the collector looks (gc.set_threshold)."""


@functools.cache
def collect_rarely() -> None:
    """Once a process."""
    gc.set_threshold(_YOUNG_OBJECTS, _YOUNG_ROUNDS, _MIDDLE_ROUNDS)


@functools.cache
def keep_freed_memory() -> bool:
    """Once a process; False where the C library has no mallopt."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    kept, mapped = ((_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_MMAP_THRESHOLD, _MAPPED_BYTES))
    return bool(mallopt(*kept)) and bool(mallopt(*mapped))
