"""Two thousand sessions leave the page's process as large as the first few hundred did."""

import pytest

from tests.serve.page.crowd import UNLIMITED, Crowd

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_memory_is_flat_over_two_thousand_sessions(open_page) -> None:
    page = open_page({"ash": lambda m: "one", "elm": lambda m: "two"}, limits=UNLIMITED)
    crowd = Crowd(page.url)
    sizes_mb: list[float] = []
    for _ in range(40):
        sizes_mb.append(crowd.come(50))
        print(f"{50 * len(sizes_mb)} sessions: {sizes_mb[-1]:.0f} MB", flush=True)
    assert not crowd.failed, crowd.failed[:5]
    assert sizes_mb[-1] - sizes_mb[9] < 30, "over the last 1,500 sessions"
