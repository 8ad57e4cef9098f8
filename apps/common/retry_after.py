"""How long an endpoint asks to wait (RFC 9110 10.2.3), and what is too long."""

import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from time import time

LONGEST_WAIT_S = 600.0
"""a run that would sleep longer ends instead, with what is stored"""


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds of `retry-after-ms` or `Retry-After` (seconds or a date); None where it says none.

    The past is 0, and infinity is what it says.
    """
    millis = _number(headers.get("retry-after-ms"))
    if millis is not None:
        return max(0.0, millis / 1000.0)
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None:
        return max(0.0, seconds)
    return _until_s(value) if value else None


def wait_in_words(seconds: float) -> str:
    """For a wait of more than ten minutes."""
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} minutes"
    days = seconds / 86400
    if days < 2:
        return f"{seconds / 3600:.0f} hours"
    return f"{days:.0f} days" if days < 1000 else "for years"


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return None if math.isnan(value) else value


def _until_s(date: str) -> float | None:
    try:
        due = parsedate_to_datetime(date)
        return max(0.0, (due if due.tzinfo else due.replace(tzinfo=UTC)).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None
