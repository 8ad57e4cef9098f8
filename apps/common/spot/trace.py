"""Availability of spot machines over time: one file a zone, as the public traces have it.

    {"metadata": {"gap_seconds": 600}, "data": [1, 1, 0, ...]}

`data` counts the machines that could be had, or were kept, at each tick; 0 is none. The layout is
that of github.com/skypilot-org/spot-traces (collected for "Can't Be Late", NSDI '24).
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from apps.common.errors import InputError
from apps.common.files import storage

ON_DEMAND = "on-demand"
"""the place of machines that nobody takes back; every other place is a zone of a market"""


@dataclass(frozen=True, kw_only=True)
class Market:
    """The zones that one job can choose among, over the same ticks.

    Not slotted: `up` and `places` are kept once computed.
    """

    name: str
    tick_s: float
    zones: tuple[str, ...]
    """Cheapest or nearest first: the order in which policies take them."""
    counts: NDArray[np.int64]
    """[zones, ticks]: machines that could be had, or were kept"""
    num_machines: int = 1
    """that the job needs together in one zone"""

    @cached_property
    def up(self) -> NDArray[np.bool_]:
        """[zones, ticks]: whether the whole job could run there."""
        return self.counts >= self.num_machines

    @property
    def num_ticks(self) -> int:
        return self.counts.shape[1]

    @property
    def hours(self) -> float:
        return self.num_ticks * self.tick_s / 3600

    @property
    def availability(self) -> float:
        """Share of the time in which some zone has machines."""
        return float(self.up.any(axis=0).mean())

    @cached_property
    def places(self) -> list[tuple[str, ...]]:
        """Of every tick, the zones that are up."""
        columns = cast(list[list[bool]], self.up.T.tolist())
        return [
            tuple(zone for zone, is_up in zip(self.zones, column, strict=True) if is_up)
            for column in columns
        ]

    def part(self, start: int, end: int) -> "Market":
        return replace(self, counts=self.counts[:, start:end])

    def halves(self) -> tuple["Market", "Market"]:
        """What may be learnt from, and what comes after it."""
        middle = self.num_ticks // 2
        return self.part(0, middle), self.part(middle, self.num_ticks)

    def alone(self) -> list["Market"]:
        """Every zone as a market of its own."""
        return [
            replace(self, name=zone, zones=(zone,), counts=self.counts[row : row + 1])
            for row, zone in enumerate(self.zones)
        ]


def read(folders: Sequence[str], num_machines: int) -> list[Market]:
    """One market for each folder that holds traces, at any depth.

    InputError for a folder without traces, or a file that is none.
    """
    markets = [
        _market(folder, files, num_machines) for root in folders for folder, files in _folders(root)
    ]
    return markets


def _folders(root: str) -> Iterable[tuple[str, list[str]]]:
    top = storage.local_path(root)
    there = [
        (folder, [os.path.join(folder, name) for name in sorted(names) if name.endswith(".json")])
        for folder, _, names in sorted(os.walk(top))
    ]
    there = [(folder, files) for folder, files in there if files]
    if not there:
        raise InputError(
            f"--trace {root} holds no traces; expected a folder with one JSON file a zone: "
            '{"metadata": {"gap_seconds": 600}, "data": [1, 0, ...]}.'
        )
    return there


def _market(folder: str, files: list[str], num_machines: int) -> Market:
    """Zones over the ticks that all of them have."""
    read_files = [_read_file(path) for path in files]
    ticks = {tick for tick, _ in read_files}
    if len(ticks) > 1:
        raise InputError(
            f"{folder} mixes ticks of {sorted(ticks)} seconds; keep zones of one collection in a "
            "folder."
        )
    shortest = min(len(counts) for _, counts in read_files)
    return Market(
        name=os.path.basename(folder),
        tick_s=ticks.pop(),
        zones=tuple(os.path.basename(path).removesuffix(".json") for path in files),
        counts=np.stack([counts[:shortest] for _, counts in read_files]),
        num_machines=num_machines,
    )


def _read_file(path: str) -> tuple[float, NDArray[np.int64]]:
    try:
        record = storage.read_json(path)
        tick_s = float(record["metadata"]["gap_seconds"])
        counts = _whole_numbers(record["data"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no availability trace ({type(error).__name__}: {error}); expected "
            '{"metadata": {"gap_seconds": 600}, "data": [1, 0, ...]}.'
        ) from error
    if not 0 < tick_s < math.inf or counts.ndim != 1 or not len(counts):
        raise InputError(f"{path} has no ticks; expected gap_seconds above 0 and a list of counts.")
    if counts.min() < 0:
        raise InputError(f"{path} counts {counts.min()} machines; expected 0 or more.")
    return tick_s, counts


def _whole_numbers(data: object) -> NDArray[np.int64]:
    """ValueError for anything else."""
    given = np.asarray(data)
    kind = given.dtype.kind
    is_whole = np.isfinite(given) & (given == np.trunc(given)) if kind == "f" else kind in "biu"
    if not np.all(is_whole):
        raise ValueError("data holds more than whole numbers")
    return given.astype(np.int64)


def write(market: Market, folder: str) -> None:
    """The inverse of `read`."""
    for zone, row in zip(market.zones, market.counts, strict=True):
        record: Mapping[str, object] = {
            "metadata": {"gap_seconds": market.tick_s},
            "data": cast(list[int], row.tolist()),
        }
        storage.write_json(storage.join(folder, f"{zone}.json"), record)
