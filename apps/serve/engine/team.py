"""Runs a C function on the threads that torch's own CPU operations use.

A second pool of threads would fight for the cores with torch's, whose threads go on spinning for a
while after each operation. Where torch has no OpenMP of its own, the calling thread does it alone.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch


def run(function: int, task: np.ndarray) -> None:
    """Call the function at this address with `task`'s own, once in each of torch's threads."""
    threads = torch.get_num_threads()
    parallel = _gomp_parallel() if threads > 1 else None
    if parallel is None:
        _VOID_FUNCTION(function)(task.ctypes.data)
    else:
        parallel(function, task.ctypes.data, threads, 0)


_VOID_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@cache
def _gomp_parallel() -> Callable[[int, int, int, int], None] | None:
    """GCC's entry point of a parallel region: function, argument, threads, flags."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        parallel = ctypes.CDLL(str(path)).GOMP_parallel
        parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        return parallel
    return None
