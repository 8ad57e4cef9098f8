"""Policies to compare with: all on demand, spread over zones, and SkyServe's.

SkyServe: Mao et al., "SkyServe: Serving AI Models across Regions and Clouds with Spot Instances",
arXiv 2411.01438 (2024), algorithm 1 and section 4: zones that just took a machine are left for the
others; `extra` replicas beyond the target; a machine on demand for each one that is not ready.
"""

from apps.common.spot.trace import ON_DEMAND
from apps.serve.spot.fleet import Fleet, Wanted


class OnDemand:
    """Never spot."""

    def decide(self, fleet: Fleet) -> Wanted:
        return {ON_DEMAND: fleet.target}


class Spread:
    """Evenly over all zones, wherever they have machines; nothing on demand."""

    def __init__(self, zones: tuple[str, ...], extra: int = 0) -> None:
        self._zones, self._extra = zones, extra

    def decide(self, fleet: Fleet) -> Wanted:
        total, count = fleet.target + self._extra, len(self._zones)
        return {z: (total + count - 1 - i) // count for i, z in enumerate(self._zones)}


class SkyServe:
    """Spreads over the zones that have not just failed, and falls back on demand."""

    def __init__(self, zones: tuple[str, ...], extra: int) -> None:
        self._zones, self._extra = zones, extra
        self._active, self._failing = list(zones), list[str]()

    def decide(self, fleet: Fleet) -> Wanted:
        for zone in self._zones:
            if zone in fleet.lost or zone in fleet.refused:
                self._fail(zone)
        for zone in [z for z in self._failing if fleet.ready.get(z) and z not in fleet.lost]:
            self._failing.remove(zone)
            self._active.append(zone)
        wanted = {zone: fleet.held(zone) for zone in self._zones}
        total = fleet.target + self._extra
        while sum(wanted.values()) < total:
            wanted[min(self._active, key=lambda z: wanted[z])] += 1
        while sum(wanted.values()) > total:
            wanted[max(wanted, key=lambda z: wanted[z])] -= 1
        short = max(0, total - fleet.num_ready_spot)
        return {**wanted, ON_DEMAND: min(fleet.target, short)}

    def _fail(self, zone: str) -> None:
        if zone in self._active:
            self._active.remove(zone)
            self._failing.append(zone)
        if not self._active or (len(self._active) < 2 and len(self._zones) > 1):
            self._active, self._failing = list(self._zones), []
