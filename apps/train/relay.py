"""Between the ranks and the command that the user started: events up, the wish to stop down."""

import time
from collections.abc import Callable

import ray
from ray.actor import ActorProxy
from ray.train import UserCallback
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from apps.train.attempts import first_failure
from apps.train.loop.record import Event, Failed

INTERVAL_S = 0.25


class Relay:
    """An actor on the machine of the command."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._is_stopping = False

    def put(self, event: Event) -> None:
        self._events.append(event)

    def take(self) -> list[Event]:
        taken, self._events = self._events, []
        return taken

    def stop(self) -> None:
        self._is_stopping = True

    def is_stopping(self) -> bool:
        return self._is_stopping


def start_relay() -> "ActorProxy[Relay]":
    """On the machine of the command."""
    here = ray.get_runtime_context().get_node_id()
    strategy = NodeAffinitySchedulingStrategy(here, soft=False)
    return ray.remote(Relay).options(num_cpus=0, scheduling_strategy=strategy).remote()


def stop_asker(relay: "ActorProxy[Relay]") -> Callable[[], bool]:
    asked_s = 0.0

    def is_stopping() -> bool:
        nonlocal asked_s
        if time.monotonic() - asked_s < INTERVAL_S:
            return False
        asked_s = time.monotonic()
        return ray.get(relay.is_stopping.remote())

    return is_stopping


class FailureTeller(UserCallback):
    """Runs where Ray Train decides about the next attempt."""

    def __init__(self, relay: "ActorProxy[Relay]") -> None:
        self._relay = relay

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        ray.get(self._relay.put.remote(Failed(first_failure(worker_exceptions))))
