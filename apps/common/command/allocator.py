"""What glibc's malloc does with memory that is freed.

By default it gives back what lies free at the end of the heap as soon as that is 128 KB. A worker
that parses one message after another then asks for the same pages again each time: 15,000 page
faults a MB of HTML, and a third of the time. So processes that work through many small things keep
some of it (mallopt(3)).
"""

import ctypes
import functools

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 64 << 20
"""Free memory at the end of the heap that stays with the process."""
_MAPPED_BYTES = 32 << 20
"""What is larger gets pages of its own, and gives them back. Once one threshold is set, glibc
leaves the other at 128 KB, so both are."""


@functools.cache
def keep_freed_memory() -> bool:
    """Once a process; False where the C library has no mallopt."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    kept, mapped = ((_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_MMAP_THRESHOLD, _MAPPED_BYTES))
    return bool(mallopt(*kept)) and bool(mallopt(*mapped))
