"""When an endpoint, or one of its models, has answered nothing for too long, or for too much."""

from dataclasses import dataclass

from apps.common.errors import CriaError

FAILURES_TO_OPEN = 24
FIRST_OUTAGE_S = 45.0
"""An endpoint that has never answered is more likely mistyped than down."""
FIRST_LOSSES, LOSSES = 5, 24
"""Replies in a row that were paid and say nothing: at the start, and later."""


class EndpointLostError(CriaError):
    """No further call can succeed there, or be worth its price; other endpoints' calls go on."""


@dataclass(kw_only=True, slots=True)
class Outage:
    """The failures since the last answer."""

    max_s: float
    """how long one may last that has answered before"""
    last_ok_s: float
    """of the caller's clock; when it began, before the first answer"""
    has_answered: bool = False
    failures_in_row: int = 0
    losses_in_row: int = 0
    """failures that are replies which say nothing"""

    def end(self, now_s: float) -> None:
        self.has_answered, self.last_ok_s = True, now_s
        self.failures_in_row = self.losses_in_row = 0

    @property
    def is_too_dear(self) -> bool:
        """Whether what comes back is paid and says nothing, too often in a row."""
        return self.losses_in_row >= (LOSSES if self.has_answered else FIRST_LOSSES)

    def too_long_s(self, now_s: float, failures: int) -> float | None:
        """How long it has lasted, where that is too long for so many failures; else None."""
        outage_s = now_s - self.last_ok_s
        most_s = self.max_s if self.has_answered else FIRST_OUTAGE_S
        return outage_s if failures >= FAILURES_TO_OPEN and outage_s > most_s else None
