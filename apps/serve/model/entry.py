"""What a gateway has of one model: its text side and the way to its replicas, or an address."""

from dataclasses import dataclass, field

from apps.serve.admission.fair_queue import FairQueue
from apps.serve.config import ModelConfig
from apps.serve.engine.remote import RemoteEngine
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
