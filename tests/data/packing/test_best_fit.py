"""Best-fit-decreasing: every segment once, no row too full, little waste."""

import json

from hypothesis import given
from hypothesis import strategies as st

from apps.data.packing.best_fit import best_fit_decreasing, one_per_row


@given(st.lists(st.integers(1, 64), max_size=200))
def test_every_segment_is_in_one_row_and_no_row_overflows(lengths):
    rows = best_fit_decreasing(lengths, 64)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 64 for row in rows)
    assert len(rows) <= 1.5 * -(-sum(lengths) // 64) + 1


def test_the_tightest_row_is_taken():
    assert best_fit_decreasing([60, 50, 40, 24, 14, 4], 64) == [[0, 5], [1, 4], [2, 3]]


def test_fill_is_99_percent_on_real_sharegpt_lengths(real_data):
    lengths = json.loads((real_data / "sharegpt-lengths" / "lengths.json").read_text())
    rows = best_fit_decreasing(lengths, 2048)
    assert sum(lengths) / (len(rows) * 2048) >= 0.99
    assert sum(lengths) / (len(one_per_row(lengths)) * 2048) < 0.77
