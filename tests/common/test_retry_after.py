"""Whatever an endpoint says about waiting is a number of seconds or nothing."""

import math
from email.utils import formatdate
from time import time

import pytest

from apps.common.retry_after import retry_after_s, wait_in_words


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, math.inf),
        ({"retry-after": "12 s"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "Wed, 99 Foo 2099"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "1.2.3", "retry-after": "2"}, 2.0),
        ({"retry-after-ms": "\N{SUPERSCRIPT TWO}", "retry-after": "2"}, 2.0),
        ({"retry-after-ms": "-1"}, 0.0),
    ],
)
def test_a_wait_is_read_or_left_out(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_a_date_is_universal_time_though_it_says_no_zone() -> None:
    for date in (formatdate(time() + 90, usegmt=True), formatdate(time() + 90)[:-6]):
        assert retry_after_s({"retry-after": date}) == pytest.approx(90, abs=3)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(900, "15 minutes"), (86400, "24 hours"), (6e5, "7 days"), (math.inf, "for years")],
)
def test_a_long_wait_is_told_in_words(seconds: float, words: str) -> None:
    assert wait_in_words(seconds) == words
