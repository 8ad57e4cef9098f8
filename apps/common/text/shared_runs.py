"""Runs of words that two texts share: fingerprints that lead to them, and the runs themselves.

Winnowing (Schleimer, Wilkerson and Aiken, "Winnowing: local algorithms for document
fingerprinting", SIGMOD 2003): every GRAM words in a row have a hash, and of every WINDOW hashes in
a row the least is kept. Two texts that share MIN_RUN words in a row share a whole window of hashes,
so they keep the same one of it. No such run is missed, though only some 2 / (WINDOW + 1) of the
hashes are kept.

    places of the words  0  1  2  3  4  5  6  7  8
    hashes of the grams  7  3  9  5  2               (GRAM is 5: the last one begins at place 4)
    windows of 4         7 3 9 5, 3 9 5 2            keep 3 at place 1, and 2 at place 4
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

GRAM, WINDOW = 5, 4
"""words, hashes"""
MIN_RUN = GRAM + WINDOW - 1
"""words; shorter runs are everybody's"""
_ODD = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio: multiplying by it spreads what is alike (Knuth, TAOCP 6.4)"""


class Fingerprints(NamedTuple):
    """The kept hashes of a text, in its order."""

    hashes: npt.NDArray[np.int32]
    places: npt.NDArray[np.int32]
    """the word with which each one's gram begins"""


def fingerprints(spoken: Sequence[str]) -> Fingerprints:
    """Of the words of a text; none for fewer than MIN_RUN words."""
    if len(spoken) < MIN_RUN:
        return Fingerprints(np.zeros(0, np.int32), np.zeros(0, np.int32))
    values = np.fromiter(map(_word_hash, spoken), np.uint64, len(spoken))
    num_grams = len(spoken) - GRAM + 1
    grams = np.zeros(num_grams, np.uint64)
    for at in range(GRAM):
        grams = grams * _ODD + values[at : at + num_grams]
    hashes = ((grams * _ODD) >> np.uint64(32)).astype(np.uint32).view(np.int32)
    windows = np.lib.stride_tricks.sliding_window_view(hashes, WINDOW)
    places = np.unique(windows.argmin(axis=1) + np.arange(len(windows)))
    return Fingerprints(hashes[places], places.astype(np.int32))


def run_lengths(first: Sequence[str], second: Sequence[str]) -> npt.NDArray[np.int32]:
    """For each word of `second`, the words of the longest run ending there that `first` has too.

    `run_lengths(["a", "b", "c"], ["b", "c", "a", "x"])` is [1, 2, 1, 0]: the table of the longest
    common substring, one row at a time.
    """
    numbers = {word: number for number, word in enumerate(dict.fromkeys(first))}
    ours = np.array([numbers[word] for word in first], np.int32)
    ending = np.zeros(len(first) + 1, np.int32)
    """entry i + 1: how long the run is that ends with our word i"""
    longest = np.zeros(len(second), np.int32)
    for at, word in enumerate(second):
        ending[1:] = np.where(ours == numbers.get(word, -1), ending[:-1] + 1, 0)
        longest[at] = ending.max()
    return longest


@functools.lru_cache(maxsize=1 << 18)
def _word_hash(word: str) -> int:
    """The same in every process, unlike `hash`."""
    spelled = word.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(spelled, digest_size=8).digest())
