"""What a response without a usable reply means: who is at fault, and whether to send again."""

import re
from collections.abc import Mapping
from typing import Literal

from apps.common.retry_after import LONGEST_WAIT_S, retry_after_s, wait_in_words
from apps.eval.calls.rate_gate import Outcome

PAID_TRIES = 5
"""Of one request that may have been billed and brought no reply, before it is left."""
FailureKind = Literal["rate_limited", "unavailable", "timeout", "garbled", "rejected", "fatal"]
"""garbled: a success that holds no reply; rejected: this request is at fault; fatal: all are"""
UNFIT = (400, 422)
"""The request has something that the endpoint does not take."""
WRITTEN_CODES = ("json_validate_failed",)
"""The model wrote, and what it wrote is not of the form that was asked for."""
# Codes with which OpenAI says that the account, not the request, is at fault.
_ACCOUNT_CODES = (
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "account_deactivated",
)
_FILTER_CODES = (
    *("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"),
    *("invalid_prompt", "data_inspection_failed"),
)
# An input that is flagged is one answer's fault; an account that is flagged is not meant.
_FLAGGED = re.compile(
    r"\b(?:input|prompt|content|message|text)s?\b.{0,40}\b(?:flagged|violat)|\bflagged_input\b|"
    r"\bviolat\w+ .{0,40}\b(?:usage polic|content polic|usage guideline)",
    re.IGNORECASE,
)
_ACCOUNT = re.compile(r"\b(?:account|organi[sz]ation|api key|project)\b", re.IGNORECASE)
# "Limit 30000, Requested 31000": no pause makes the request smaller.
_SIZES = re.compile(r"\blimit:? (\d[\d,]*)\b.*?\brequested:? (\d[\d,]*)", re.IGNORECASE)
# The work may have been done, and billed, before these were said; 503 and 529 refuse it unread.
_BILLED_STATUSES = (408, 500, 502, 504)


class CallFailure(Exception):
    """A request without a usable response, and what to do about it."""

    def __init__(
        self,
        kind: FailureKind,
        sentence: str,
        may_be_billed: bool = False,
        retry_after_s: float | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence
        self.may_be_billed = may_be_billed
        self.retry_after_s = retry_after_s
        self.advice = advice
        """what mends a fatal one, where it is neither the URL, the key nor the model's name"""

    @property
    def outcome(self) -> Outcome:
        """For the gate: one that refuses is up, so a pause, as after an outage, helps nobody."""
        if self.kind == "rate_limited":
            return "rate_limited"
        return "error" if self.kind in ("timeout", "unavailable", "garbled") else "cancelled"


def is_filtered(status: int, message: str, code: str | None) -> bool:
    """Whether this one input was kept from the model."""
    if status not in (*UNFIT, 403):
        return False
    return code in _FILTER_CODES or bool(_FLAGGED.search(message) and not _ACCOUNT.search(message))


def failure_of(
    status: int, headers: Mapping[str, str], message: str, code: str | None
) -> CallFailure:
    """Of a response whose status is no success."""
    sentence = f"HTTP {status}: {message}"
    if 300 <= status < 400:
        return _moved(status, headers)
    if status in (401, 402, 403, 404) or code in _ACCOUNT_CODES:
        return CallFailure("fatal", sentence)
    if status == 429 and not is_too_large(message):
        return _throttled("rate_limited", sentence, headers)
    if status in (408, 409) or status >= 500:
        return _throttled("unavailable", sentence, headers, status in _BILLED_STATUSES)
    if code in WRITTEN_CODES:
        return CallFailure("unavailable", sentence, may_be_billed=True)
    return CallFailure("rejected", sentence)


def is_too_large(message: str) -> bool:
    """Whether a refusal for the rate says that the one request is beyond it."""
    if "request too large" in message.lower():
        return True
    sizes = _SIZES.search(message)
    return bool(sizes) and int(sizes[2].replace(",", "")) > int(sizes[1].replace(",", ""))


def _moved(status: int, headers: Mapping[str, str]) -> CallFailure:
    """A key and a text go where they were sent and nowhere else."""
    there = headers.get("location")
    if not there:
        return CallFailure("fatal", f"HTTP {status} instead of a reply")
    said = f"HTTP {status}: the endpoint moved to {there.partition('?')[0][:200]}"
    return CallFailure("fatal", said, advice="give that URL: nothing was sent there")


def _throttled(
    kind: FailureKind, sentence: str, headers: Mapping[str, str], may_be_billed: bool = False
) -> CallFailure:
    """One to be sent again, unless the endpoint asks for a pause that nobody sits through."""
    wait_s = retry_after_s(headers)
    if wait_s is None or wait_s <= LONGEST_WAIT_S:
        return CallFailure(kind, sentence, may_be_billed, wait_s)
    said = f"{sentence}; it asks to wait {wait_in_words(wait_s)}"
    return CallFailure("fatal", said, may_be_billed, advice="run the same command again then")
