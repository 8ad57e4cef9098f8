"""A hundred visitors at once of a service on Ray: page, gateways, proxy, and small models."""

import dataclasses
import statistics
from pathlib import Path

import pytest

from tests.serve.page.crowd import UNLIMITED, Crowd
from tests.serve.service import ON_RAY, Service

pytestmark = [*ON_RAY, pytest.mark.slow]


def test_a_hundred_visitors_of_a_small_model_all_get_their_answers(
    running: Service, tmp_path: Path
) -> None:
    before = running.config
    url = f"sqlite:///{tmp_path}/page.db"
    page = dataclasses.replace(before.page, database_url=url, limits=UNLIMITED)
    running.apply(dataclasses.replace(before, page=page))
    try:
        crowd = Crowd(f"{running.url}/ui/")
        crowd.come(100)
    finally:
        running.apply(before)
    assert not crowd.failed, crowd.failed[:5]
    p95_s = statistics.quantiles(crowd.first_text_s, n=20)[-1]
    print(f"first text within {p95_s:.1f} s (p95) of {len(crowd.first_text_s)} visitors")
