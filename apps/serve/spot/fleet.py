"""The machines of a service that may be reclaimed: what a policy sees of them, and what it wants.

A machine is one replica. A place is a zone, where machines are spot, or ON_DEMAND.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from apps.common.spot.trace import ON_DEMAND

Wanted = Mapping[str, int]
"""{place: machines}"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """At one look."""

    now_s: float
    target: int
    """replicas that have to be ready"""
    ready: Mapping[str, int]
    starting: Mapping[str, int]
    """of both, places without any may be left out"""
    lost: Mapping[str, int] = field(default_factory=dict[str, int])
    """reclaimed since the last look"""
    refused: frozenset[str] = frozenset()
    """zones that had no machine to start since the last look"""

    def held(self, place: str) -> int:
        return self.ready.get(place, 0) + self.starting.get(place, 0)

    @property
    def num_ready(self) -> int:
        return sum(self.ready.values())

    @property
    def num_ready_spot(self) -> int:
        return self.num_ready - self.ready.get(ON_DEMAND, 0)


class Policy(Protocol):
    """Remembers what it has seen: one a service."""

    def decide(self, fleet: Fleet) -> Wanted:
        """How many machines to have where; called at every look."""
        ...
