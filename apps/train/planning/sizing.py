"""How far a recipe spreads: the most GPUs that still earn their price, and a batch that divides."""

import math
from collections.abc import Callable

from apps.train.planning.result import Sizing, Training

SPREAD_COST = 1.1
"""GPU-hours that a larger number of GPUs may cost, against the cheapest number that fits."""
MOST_GPUS = 1024

Time = Callable[[int, int], Training | None]
"""(GPUs, rows of a step) -> training; None where it does not fit."""


def sizing(time: Time, num_gpus: int, batch_rows: int, rows_a_rank: int) -> Sizing | None:
    """None where the recipe fits on no number of these GPUs.

    Worked example: 96 rows. 96 GPUs take one row each, 48 two, 64 two with a quarter empty. Alone
    in a machine all cost the same GPU-hours, so 96 it is; over a slow network fewer.
    """
    there = [
        (count, training)
        for count in range(1, min(batch_rows, MOST_GPUS) + 1)
        if (training := time(count, batch_rows)) is not None
    ]
    if not there:
        return None
    cheapest = min(training.gpu_hours for _, training in there)
    within = [pair for pair in there if pair[1].gpu_hours <= SPREAD_COST * cheapest]
    most, training = max(within, key=lambda pair: pair[0])
    whole = _whole_batch(num_gpus, batch_rows, rows_a_rank)
    filled = time(num_gpus, whole) if whole else None
    return Sizing(
        most_gpus=most,
        hours=training.hours,
        whole_batch_rows=whole if filled else None,
        whole_batch_hours=filled.hours if filled else None,
    )


def _whole_batch(num_gpus: int, batch_rows: int, rows_a_rank: int) -> int | None:
    slots = num_gpus * rows_a_rank
    return None if slots == batch_rows else math.ceil(batch_rows / slots) * slots
