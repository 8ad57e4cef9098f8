"""How many replicas a model should have: Ray Serve's autoscaler asks this policy.

No Ray in here: Serve makes a `ByLoad` from its import path and calls it with what it has counted.
"""

from collections.abc import Mapping
from typing import Protocol

LOAD = "load"


class Counted(Protocol):
    """What this reads of ray.serve's AutoscalingContext; means over the last seconds."""

    @property
    def total_num_requests(self) -> float:
        """Running and waiting, those included that no replica has yet."""
        ...

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[object, float]]:
        """Name -> replica -> what it told, see Capacity.load."""
        ...


class ByLoad:
    """As many as the requests ask for, or the places and tokens that they take if that is more.

    targets 24 requests and load 0.8: 30 requests, loads 1.0 and 1.2    max(1.25, 2.75) -> 3
    """

    def __init__(self, target_ongoing_requests: float, target_load: float) -> None:
        self._target_requests, self._target_load = target_ongoing_requests, target_load

    def __call__(self, counted: Counted) -> tuple[float, dict[str, object]]:
        """The number, which Serve rounds up, bounds and delays, and no state to keep."""
        loads = (counted.aggregated_metrics or {}).get(LOAD) or {}
        by_requests = counted.total_num_requests / self._target_requests
        return max(by_requests, sum(loads.values()) / self._target_load), {}
