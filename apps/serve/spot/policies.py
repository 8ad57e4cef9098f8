"""The policies by name, each made anew for a service and its zones."""

from collections.abc import Callable, Mapping

from apps.serve.spot.fleet import Policy
from apps.serve.spot.known import OnDemand, SkyServe, Spread
from apps.serve.spot.replay import Service
from apps.serve.spot.steady import Steady, SteadyConfig

Zones = tuple[str, ...]


def _steady(zones: Zones, service: Service) -> Policy:
    return Steady(
        zones,
        SteadyConfig(
            spot_price=service.spot_price,
            recovery_s=service.cold_start_s + service.look_s,
            availability=service.availability,
        ),
    )


POLICIES: Mapping[str, Callable[[Zones, Service], Policy]] = {
    "on-demand": lambda zones, service: OnDemand(),
    "spread": lambda zones, service: Spread(zones),
    "spread+2": lambda zones, service: Spread(zones, 2),
    "skyserve+1": lambda zones, service: SkyServe(zones, 1),
    "skyserve+2": lambda zones, service: SkyServe(zones, 2),
    "steady": _steady,
}
