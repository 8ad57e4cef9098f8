"""What a run may still spend: the charge so far, and what is set aside for calls in flight.

A call's bound is its prompt and `max_tokens`, and some endpoints think beyond that. What one call
can cost is then known only from those before it. So a call reserves as many times its bound as the
dearest of its judge took. Beside others in flight it must fit even if all of them cost more:

    of a judge                    a call reserves    beside others, each must fit at
    nothing known                 1 x its bound      16 x
    4 replies, at most .3 x       1 x                4 x
    16 replies, at most .3 x      1 x                1 x
    4 replies, at most 5 x        5 x                10 x

So spending passes `--max-usd` by one call that costs more than all before it, or where many at once
cost twice the dearest so far. A judge that keeps to its limit is soon held back no more.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from apps.common.errors import CriaError
from apps.eval.calls.lines import Bound

UNSEEN = 16.0
MARGIN = 2.0
_ROUNDING_USD = 1e-12


class BudgetExhaustedError(CriaError):
    """The next call could cost more than is left of --max-usd."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """A call in flight."""

    holder: str
    bound: Bound
    usd: float
    """what is set aside: its bound, or more where its judge's calls cost more"""


class Budget:
    """US dollars of a judgments folder; `max_usd` None allows all."""

    def __init__(self, max_usd: float | None) -> None:
        self._max_usd = max_usd
        self._reserved: dict[tuple[str, int], Reserved] = {}
        self._dearest: dict[str, float] = {}
        self._num_seen: Counter[str] = Counter()
        self.charged_usd = 0.0

    @property
    def has_calls_in_flight(self) -> bool:
        return bool(self._reserved)

    def see(self, judge: str, usd: float, bound_usd: float) -> None:
        """What a call of a judge has cost, and what it should have cost at most."""
        if bound_usd > 0:
            self._num_seen[judge] += 1
            self._dearest[judge] = max(self._dearest.get(judge, 0.0), usd / bound_usd)

    def fits(self, bound: Bound) -> bool:
        """Whether there is room for what the call would reserve; always for one that is free."""
        reserved_usd = sum(one.usd for one in self._reserved.values())
        return not bound.usd or self._has_room(reserved_usd + self._usd(bound))

    def fits_beside_others(self, bound: Bound) -> bool:
        """Whether there is room too if it, and what is in flight, cost more than any so far."""
        in_flight = [one.bound for one in self._reserved.values() if one.bound.usd]
        if not in_flight or not bound.usd:
            return self.fits(bound)
        return self.fits(bound) and self._has_room(sum(map(self._dear_usd, (*in_flight, bound))))

    def reserve(self, holder: str, bound: Bound, attempt: int) -> float:
        """Sets aside what the call may cost, US dollars; raises BudgetExhaustedError."""
        usd = self._usd(bound)
        if not self.fits(bound):
            times = self._dearest.get(bound.judge, 0.0)
            why = f", {times:.1f} times its bound as one did before," if times > 1 else ""
            raise BudgetExhaustedError(
                f"the next call of {bound.judge} may cost ${usd:.4f}{why} and "
                f"${self.charged_usd:.4f} of --max-usd {self._max_usd:g} is spent; raise --max-usd "
                "to go on: what is stored is not paid again"
            )
        self.adopt(holder, bound, attempt, usd)
        return usd

    def adopt(self, holder: str, bound: Bound, attempt: int, usd: float) -> None:
        """Sets `usd` aside for a call that is in flight already."""
        self._reserved[bound.key, attempt] = Reserved(holder, bound, usd)

    def reserved(self, key: str, attempt: int) -> Reserved | None:
        """What is set aside for an attempt that has not ended."""
        return self._reserved.get((key, attempt))

    def settle(self, key: str, attempt: int, usd: float) -> bool:
        """Charges an attempt in place of what was set aside; False where it had ended before."""
        if self._reserved.pop((key, attempt), None) is None:
            return False
        self.charged_usd += usd
        return True

    def held_by(self, holder: str) -> Sequence[tuple[str, int]]:
        """(key, attempt) of a task's calls in flight."""
        return [place for place, one in self._reserved.items() if one.holder == holder]

    def _has_room(self, usd: float) -> bool:
        if self._max_usd is None:
            return True
        return self.charged_usd + usd <= self._max_usd + _ROUNDING_USD

    def _usd(self, bound: Bound) -> float:
        return bound.usd * max(1.0, self._dearest.get(bound.judge, 0.0))

    def _dear_usd(self, bound: Bound) -> float:
        doubt = UNSEEN / max(1, self._num_seen[bound.judge])
        return bound.usd * max(1.0, doubt, MARGIN * self._dearest.get(bound.judge, 0.0))
