"""Conversations of real lengths with random tokens: what training benchmarks run on.

With CRIA_TEST_DATA set: token lengths of 6,144 real ShareGPT conversations, cut at 2,048 (mean
1,550). Without: a log-normal sample with the same mean after the cut. Needs only numpy, so that a
peer in its own environment reads exactly the same conversations.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

CUT_TOKENS = 2048
NUM_RESERVED_IDS = 3


class Conversation(NamedTuple):
    """Token ids and labels; labels are -100 where a token carries no loss."""

    ids: list[int]
    labels: list[int]


def lengths(scale: float = 1.0) -> tuple[np.ndarray, str]:
    """Token lengths, scaled and rounded, and the name of their source."""
    folder = os.environ.get("CRIA_TEST_DATA")
    if folder:
        path = Path(folder) / "sharegpt-lengths" / "lengths.json"
        values, source = np.array(json.loads(path.read_text())), "ShareGPT sample"
    else:
        rng = np.random.default_rng(0)
        values = np.minimum(rng.lognormal(np.log(2100), 0.95, 6144), CUT_TOKENS)
        source = "log-normal sample (CRIA_TEST_DATA is not set)"
    return np.maximum(np.round(values * scale), 8).astype(int), source


def conversations(count: int, vocab_size: int, scale: float = 1.0) -> list[Conversation]:
    """The first `count` conversations: a prompt without loss, then an answer with it (60 %)."""
    sizes, _ = lengths(scale)
    made = []
    for index, size in enumerate(np.resize(sizes, count)):
        rng = np.random.default_rng(index)
        ids = rng.integers(NUM_RESERVED_IDS, vocab_size, size)
        labels = np.where(np.arange(size) < 0.4 * size, -100, ids)
        made.append(Conversation(ids.tolist(), labels.tolist()))
    return made
