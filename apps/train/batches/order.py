"""Which rows make up which step.

The rows of step k are a pure function of (seed, k): permutations of the rows, one an epoch, are
laid end to end and cut into global batches. A rank takes its slice. So the whole state of the data
is one integer, and neither a restart nor another number of ranks changes a batch. (The idea is
levanter's "Data-Loader-Design"; iterators with state cannot be resumed on other ranks.)

Three rows, batches of two, two epochs; with permutations [2, 0, 1] and [1, 2, 0]:

    laid end to end    2 0 1 1 2 0
    step               0   1   2      global_rows(1) is [1, 1]
    two ranks          rank 1 takes the second row of each step: 0, 1, 0

Legend: G rows of a global batch, W ranks, A micro-batches a step, M rows of a micro-batch.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

NO_ROW = -1
"""stands for a row without loss: the last batch of a run and uneven splits are filled with it"""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchOrder:
    """The order in which a run visits its rows."""

    num_rows: int
    global_batch_rows: int
    seed: int
    total_rows: int
    """rows visited over the whole run, repeats included"""

    @property
    def num_steps(self) -> int:
        return math.ceil(self.total_rows / self.global_batch_rows)

    def global_rows(self, step: int) -> np.ndarray:
        """Row numbers of one step, shape (G,); NO_ROW past the end of the run."""
        start = step * self.global_batch_rows
        stop = min(start + self.global_batch_rows, self.total_rows)
        rows = np.full(self.global_batch_rows, NO_ROW, dtype=np.int64)
        position = start
        while position < stop:
            epoch, offset = divmod(position, self.num_rows)
            count = min(stop - position, self.num_rows - offset)
            order = _permutation(self.seed, epoch, self.num_rows)
            rows[position - start : position - start + count] = order[offset : offset + count]
            position += count
        return rows

    def rank_rows(self, step: int, rank: int, world_size: int, micro_rows: int) -> np.ndarray:
        """Row numbers of one rank's micro-batches, shape (A, M)."""
        num_micro, rows_each = split(self.global_batch_rows, world_size, micro_rows)
        per_rank = num_micro * rows_each
        rows = np.full(world_size * per_rank, NO_ROW, dtype=np.int64)
        rows[: self.global_batch_rows] = self.global_rows(step)
        return rows[rank * per_rank : (rank + 1) * per_rank].reshape(num_micro, rows_each)


def split(global_rows: int, world_size: int, micro_rows: int) -> tuple[int, int]:
    """Micro-batches a step and rows in each, for every rank: (A, M) with M <= micro_rows."""
    per_rank = math.ceil(global_rows / world_size)
    num_micro = math.ceil(per_rank / micro_rows)
    return num_micro, math.ceil(per_rank / num_micro)


def order_of(
    *, num_rows: int, global_batch_rows: int, seed: int, epochs: float, steps: int | None
) -> BatchOrder:
    """The order of a run of `steps`, or of `epochs` where steps is None."""
    total = steps * global_batch_rows if steps is not None else round(epochs * num_rows)
    return BatchOrder(
        num_rows=num_rows,
        global_batch_rows=global_batch_rows,
        seed=seed,
        total_rows=max(total, 1),
    )


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num_rows: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(num_rows)
