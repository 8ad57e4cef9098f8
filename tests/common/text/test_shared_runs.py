"""No shared run of MIN_RUN words is missed, and the runs are those that a slow search finds."""

import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.common.text.shared_runs import MIN_RUN, WINDOW, fingerprints, run_lengths

FEW_WORDS = st.lists(st.sampled_from("abc"), max_size=40)
MANY_WORDS = st.lists(st.integers(0, 10_000).map(str), max_size=40)


@settings(max_examples=200, deadline=None)
@given(MANY_WORDS, MANY_WORDS, MANY_WORDS, MANY_WORDS, st.lists(st.text(), min_size=MIN_RUN))
def test_texts_that_share_a_run_keep_a_hash_of_it(a, b, c, d, run) -> None:
    ours, theirs = fingerprints([*a, *run, *b]), fingerprints([*c, *run, *d])
    mine = {
        (hash, place - len(a))
        for hash, place in zip(ours.hashes.tolist(), ours.places.tolist(), strict=True)
    }
    others = {
        (hash, place - len(c))
        for hash, place in zip(theirs.hashes.tolist(), theirs.places.tolist(), strict=True)
    }
    assert mine & others


@settings(max_examples=200, deadline=None)
@given(st.one_of(FEW_WORDS, MANY_WORDS))
def test_kept_hashes_are_close_and_fewer_than_the_words(spoken: list[str]) -> None:
    kept = fingerprints(spoken)
    assert len(kept.hashes) == len(kept.places) <= max(0, len(spoken) - 4)
    assert (np.diff(kept.places) >= 1).all() and (np.diff(kept.places) <= WINDOW).all()
    assert (len(kept.places) > 0) == (len(spoken) >= MIN_RUN)


@settings(max_examples=200, deadline=None)
@given(FEW_WORDS, FEW_WORDS)
def test_the_longest_runs_are_those_of_a_slow_search(first: list[str], second: list[str]) -> None:
    def longest(end: int) -> int:
        runs = (second[start : end + 1] for start in range(end + 1))
        held = {tuple(first[a:b]) for a in range(len(first)) for b in range(a, len(first) + 1)}
        return max((len(run) for run in runs if tuple(run) in held), default=0)

    assert run_lengths(first, second).tolist() == [longest(end) for end in range(len(second))]


def test_another_process_has_the_same_hashes() -> None:
    code = (
        "import sys; from apps.common.text.shared_runs import fingerprints\n"
        "print(fingerprints(sys.argv[1:]).hashes.tolist())"
    )
    spoken = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    command = [sys.executable, "-c", code, *spoken]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(fingerprints(spoken).hashes.tolist())
