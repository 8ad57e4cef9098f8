"""A hundred visitors at once; what the page shows first, and what it keeps in memory."""

import statistics

import pytest

from tests.serve.page.crowd import UNLIMITED, Crowd

pytestmark = pytest.mark.slow


def test_a_hundred_visitors_get_their_answers_and_leave_nothing_behind(open_page) -> None:
    page = open_page({"ash": lambda m: "one " * 40, "elm": lambda m: "two " * 40}, limits=UNLIMITED)
    page.upstream.piece_s = 0.05
    crowd = Crowd(page.url)
    crowd.come(100)
    warm_mb = crowd.come(100)
    later_mb = crowd.come(100)
    p95_s = statistics.quantiles(crowd.first_text_s, n=20)[-1]
    print(f"first text within {p95_s:.1f} s (p95); {warm_mb:.0f} MB, then {later_mb:.0f} MB")
    assert not crowd.failed, crowd.failed[:5]
    assert later_mb - warm_mb < 60, "what a visitor leaves behind in the process"
