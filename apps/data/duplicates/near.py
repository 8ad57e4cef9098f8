"""Conversations that are nearly another one, by the similarity of their MinHash signatures."""

from collections.abc import Iterator

import numpy as np

from apps.data.duplicates.keys import BANDS, BANDS_READ, NUM_BANDS, NUM_PERMUTATIONS, KeyTable

_MAX_COMPARED = 50
"""Of the rows that share a band's value, a row is compared with the 50 best that stay."""


def near_duplicates(
    table: KeyTable, threshold: float, alive: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows similar to a better one that stays, and that one. `alive` are rows, the best first.

    The best rows come first. A row meets those that share a band with it and stay so far, and goes
    when its signature is similar enough to one of theirs; so nothing is held for what is gone.
    """
    rows, buckets = _buckets(table, alive)
    signatures = table.signatures(rows, starts)
    staying: dict[int, list[int]] = {}
    near: list[tuple[int, int]] = []
    for i, own in enumerate(_own_buckets(buckets)):
        met = sorted(set[int]().union(*[staying[bucket] for bucket in own if bucket in staying]))
        same = (signatures[met] == signatures[i]).sum(axis=1) >= threshold * NUM_PERMUTATIONS
        if same.any():
            near.append((i, met[int(same.argmax())]))
            continue
        for bucket in own:
            others = staying.setdefault(bucket, [])
            if len(others) < _MAX_COMPARED:
                others.append(i)
    pairs = rows[np.array(near, dtype=np.int64).reshape(-1, 2)]
    return pairs[:, 0], pairs[:, 1]


def _own_buckets(buckets: np.ndarray) -> Iterator[list[int]]:
    for start in range(0, buckets.shape[1], 4096):
        for own in buckets[:, start : start + 4096].T.tolist():
            yield [bucket for bucket in own if bucket >= 0]


def _buckets(table: KeyTable, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that share a band with another, best first, and [bands, rows]: the bucket, -1 for none.

    A few bands are read at a time.
    """
    buckets = np.full((NUM_BANDS, len(rows)), -1, dtype=np.int32)
    num_buckets = 0
    for group, name in enumerate(BANDS):
        for i, key in enumerate(table.bands(name)[rows].T):
            own = _shared_values(key)
            band = buckets[group * BANDS_READ + i]
            band[own >= 0] = num_buckets + own[own >= 0]
            num_buckets += int(own.max(initial=-1)) + 1
    shared = (buckets >= 0).any(axis=0)
    return rows[shared], buckets[:, shared]


def _shared_values(key: np.ndarray) -> np.ndarray:
    """The number, from 0, of each value that more than one row has; -1 for the others.

    `[7, 3, 9, 3, 7]` gives `[1, 0, -1, 0, 1]`: 3 is the first shared value and 7 the second.
    """
    order = np.argsort(key, kind="stable")
    is_first = np.ones(len(key), dtype=bool)
    is_first[1:] = key[order[1:]] != key[order[:-1]]
    is_shared = ~(is_first & np.append(is_first[1:], True))
    numbers = np.cumsum(is_first & is_shared) - 1
    numbered = np.empty(len(key), dtype=np.int32)
    numbered[order] = np.where(is_shared, numbers, -1)
    return numbered
