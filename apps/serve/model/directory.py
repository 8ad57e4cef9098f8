"""The models that a gateway offers, by name, and whether each is up."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from apps.serve.config import ApiKey
from apps.serve.errors import ApiError
from apps.serve.model.entry import Entry, RemoteEntry
from apps.serve.model.pool import PoolEntry
from apps.serve.model.workers import Announcement, Workers

AnyEntry = Entry | RemoteEntry | PoolEntry


class Directory(Protocol):
    """What is served now. Reads never block."""

    @property
    def entries(self) -> Mapping[str, AnyEntry]:
        """By the model's name, in the order of the file."""
        ...

    @property
    def workers(self) -> Workers:
        """Of other machines, that have joined pools."""
        ...

    async def announce(self, said: Announcement) -> int:
        """Tell all gateways, this one included; how many requests are with that worker."""
        ...

    async def ready(self) -> Mapping[str, bool]:
        """Whether each model has a replica that can answer."""
        ...

    async def spot_addresses(self) -> frozenset[str]:
        """Of machines that may be taken away, while there are others."""
        ...

    async def engine_metrics(self) -> Mapping[str, Sequence[Mapping[str, float]]]:
        """Model name -> one mapping of numbers per replica."""
        ...

    async def gateway_samples(self) -> Sequence[bytes]:
        """Metrics of every gateway replica, this one included (see metrics.py)."""
        ...


def find(directory: Directory, name: str, owner: ApiKey | None) -> AnyEntry:
    """The entry of a model's name or alias, for the key of `owner`. Raises ApiError 404 when there
    is none, and 403 for one that the key may not use."""
    entries = directory.entries
    entry = entries.get(name) or next(
        (one for one in entries.values() if name in one.config.aliases), None
    )
    if entry is None:
        known = ", ".join(n for n, one in entries.items() if may_use(owner, one)) or "none yet"
        raise ApiError(
            404,
            f"The model {name[:96]!r} does not exist; models here: {known}.",
            param="model",
            code="model_not_found",
        )
    if owner is not None and not may_use(owner, entry):
        raise ApiError(
            403,
            f"The key of {owner.name!r} may not use the model {name!r}.",
            param="model",
            code="model_not_allowed",
        )
    return entry


def may_use(owner: ApiKey | None, entry: AnyEntry) -> bool:
    """A key names its models as clients do: a model that was renamed keeps those of its alias."""
    names = {entry.config.name, *entry.config.aliases}
    return owner is None or not owner.models or not names.isdisjoint(owner.models)
