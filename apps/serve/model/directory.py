"""The models that a gateway offers, by name, and whether each is up."""

from collections.abc import Mapping, Sequence
from typing import Protocol

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

    async def engine_metrics(self) -> Mapping[str, Sequence[Mapping[str, float]]]:
        """Model name -> one mapping of numbers per replica."""
        ...

    async def gateway_samples(self) -> Sequence[bytes]:
        """Metrics of every gateway replica, this one included (see metrics.py)."""
        ...


def find(directory: Directory, name: str) -> AnyEntry:
    """The entry of a model's name or alias; ApiError 404 when there is none."""
    entries = directory.entries
    if name in entries:
        return entries[name]
    for entry in entries.values():
        if name in entry.config.aliases:
            return entry
    known = ", ".join(entries) or "none yet"
    raise ApiError(
        404,
        f"The model {name[:96]!r} does not exist; models here: {known}.",
        param="model",
        code="model_not_found",
    )
