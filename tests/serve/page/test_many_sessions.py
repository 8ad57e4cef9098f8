"""Two thousand sessions leave the page's process as large as the first few hundred did."""

import pytest

from tests.serve.page.crowd import UNLIMITED, Crowd

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_memory_is_flat_over_two_thousand_sessions(open_page) -> None:
    page = open_page({"ash": lambda m: "one", "elm": lambda m: "two"}, limits=UNLIMITED)
    crowd = Crowd(page.url)
    sizes_mb = [crowd.come(50) for _ in range(40)]
    print("MB after each 50 sessions:", " ".join(f"{size:.0f}" for size in sizes_mb))
    assert not crowd.failed, crowd.failed[:5]
    assert sizes_mb[-1] - sizes_mb[9] < 30, "over the last 1,500 sessions"
