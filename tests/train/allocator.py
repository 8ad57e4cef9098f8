"""What torch's CPU allocator gave out while something ran."""

import gc
from collections.abc import Callable

import numpy as np


def peak_bytes(run: Callable[[], object]) -> int:
    """Most bytes that the allocator held at once, beyond what it held before."""
    from torch.profiler import ProfilerActivity, profile

    gc.collect()  # what an earlier run left would count as freed by this one
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    events = profiled.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return int(np.cumsum([size for _, size in changes]).max())
