"""The models that a gateway offers, by name, and whether each is up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from apps.serve.admission.fair_queue import FairQueue
from apps.serve.config import ModelConfig
from apps.serve.engine.remote import RemoteEngine
from apps.serve.errors import ApiError
from apps.serve.model.served import ServedModel
from apps.serve.replica.exchange import Backend


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A model and the way to its replicas."""

    model: ServedModel
    backend: Backend
    queue: FairQueue = field(default_factory=lambda: FairQueue(places=1 << 20, max_waiting=0))
    """Of this gateway's requests to it."""

    @property
    def config(self) -> ModelConfig:
        return self.model.config


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteEntry:
    """A model on somebody else's server, which does everything about text itself."""

    config: ModelConfig
    engine: RemoteEngine


class Directory(Protocol):
    """What is served now. Reads never block."""

    @property
    def entries(self) -> Mapping[str, Entry | RemoteEntry]:
        """By the model's name, in the order of the file."""
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


def find(directory: Directory, name: str) -> Entry | RemoteEntry:
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
