"""What a gateway knows of the models through Ray Serve: their replicas, and whether they are up."""

import asyncio
import functools
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError

from apps.serve.applications import GATEWAY, spot_addresses
from apps.serve.config import ModelConfig
from apps.serve.engine.config import PoolConfig, RemoteConfig, TorchConfig, VllmConfig
from apps.serve.engine.remote import Health, RemoteEngine
from apps.serve.model.directory import AnyEntry
from apps.serve.model.entry import Entry, RemoteEntry
from apps.serve.model.pool import Member, PoolEntry, watch_members
from apps.serve.model.served import load_model
from apps.serve.model.workers import Announcement, Workers
from apps.serve.replica.exchange import Exchange, ReplicaBackend

logger = logging.getLogger("ray.serve")

_STATUS_AGE_S = 0.5
_BROADCAST_TIMEOUT_S = 2.0
_MACHINES_AGE_S = 5.0


Entries = Mapping[str, AnyEntry]


class ServeDirectory:
    """The models of the configuration, and their state in Ray Serve."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._entries: Entries = {}
        self._revisions: Mapping[str, str] = {}
        self._names: dict[str, str] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.workers = Workers(lambda: self.pools)
        self._ready: dict[str, bool] = {}
        self._ready_at_s = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self._spot: frozenset[str] = frozenset()
        self._spot_at_s = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    @property
    def entries(self) -> Entries:
        return self._entries

    @property
    def pools(self) -> Mapping[str, PoolEntry]:
        return {n: entry for n, entry in self._entries.items() if isinstance(entry, PoolEntry)}

    async def watch(self) -> None:
        """How the pools' members are; without end."""

        def pools() -> Iterable[PoolEntry]:
            self.workers.expire()
            return self.pools.values()

        await watch_members(pools, _health)

    async def announce(self, said: Announcement) -> int:
        return sum(await _broadcast(GATEWAY, "Gateway", "heard", said))

    def model_of(self, application: str) -> str:
        """The model's name, also of one that is served no more."""
        return self._names.get(application, "")

    async def update(
        self,
        models: Sequence[ModelConfig],
        num_gateways: int = 1,
        revisions: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Take the new list; a model whose settings and files did not change keeps its entry.

        `revisions` are the files', by the model's name.
        """
        kept = {
            model.name: entry
            for model in models
            if (entry := self._entries.get(model.name))
            and entry.config == model
            and self._revisions.get(model.name) == revisions.get(model.name)
        }
        before, entries = self._entries, dict(kept)
        try:
            for model in models:
                if model.name not in kept and model.engine != "pool":
                    entries[model.name] = await self._new_entry(model)
            entries |= {m.name: self._pool(m, entries) for m in models if m.engine == "pool"}
        except BaseException:
            self._retire(entries, but=before)
            raise
        self._retire(before, but=entries)
        self._entries = {model.name: entries[model.name] for model in models}
        self._revisions = revisions
        for entry in self._entries.values():
            if isinstance(entry, Entry):
                _share_places(entry, num_gateways)
        self._names |= {model.application: model.name for model in models}
        self._ready_at_s = float("-inf")

    def _retire(self, entries: Entries, but: Entries) -> None:
        """Close the remote engines that only `entries` use, once their answers have ended."""
        kept = {id(entry.engine) for entry in but.values() if isinstance(entry, RemoteEntry)}
        for entry in entries.values():
            if isinstance(entry, RemoteEntry) and id(entry.engine) not in kept:
                closing = asyncio.create_task(entry.engine.close_when_idle())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)

    def _pool(self, config: ModelConfig, entries: Entries) -> PoolEntry:
        """A member whose model did not change stays as it is, and so do those that joined."""
        settings, before = config.engine_config(""), self._entries.get(config.name)
        assert isinstance(settings, PoolConfig)
        had = before.members if isinstance(before, PoolEntry) else {}
        members: dict[str, Member] = {}
        for member in settings.members:
            back_end, old = entries[member.model], had.get(member.model)
            assert not isinstance(back_end, PoolEntry)  # ServeConfig refuses that
            is_same = old is not None and old.back_end is back_end
            kept = old if old is not None and is_same else Member(member.model, back_end)
            kept.weight, kept.is_last_resort = member.weight, member.last_resort
            members[member.model] = kept
        return PoolEntry(config=config, members=members)

    async def _new_entry(self, config: ModelConfig) -> Entry | RemoteEntry:
        engine = config.engine_config(config.path)
        if isinstance(engine, RemoteConfig):
            before = self._entries.get(config.name)
            if isinstance(before, RemoteEntry) and before.engine.config == engine:
                return RemoteEntry(config=config, engine=before.engine)
            remote = RemoteEngine(engine)
            await remote.start()
            return RemoteEntry(config=config, engine=remote)
        model = await asyncio.to_thread(load_model, config)
        application = config.application
        ask_all = functools.partial(_broadcast, application, "Model")
        backend = ReplicaBackend(_handle(application), self._exchange, application, ask_all)
        return Entry(model=model, backend=backend)

    async def ready(self) -> Mapping[str, bool]:
        """As Serve says, or as it was when Serve's controller says nothing in time. One thread at
        most waits for that, for others have work for these few threads."""
        if time.monotonic() - self._ready_at_s > _STATUS_AGE_S:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask_status())
            await asyncio.wait({self._asking}, timeout=_BROADCAST_TIMEOUT_S)
        return self._ready

    async def spot_addresses(self) -> frozenset[str]:
        """As Ray says, or as it was when Ray says nothing in time; see `ready`."""
        if time.monotonic() - self._spot_at_s > _MACHINES_AGE_S:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look_at_machines())
            await asyncio.wait({self._looking}, timeout=_BROADCAST_TIMEOUT_S)
        return self._spot

    async def _look_at_machines(self) -> None:
        try:
            self._spot = spot_addresses(await asyncio.to_thread(ray.nodes))
            self._spot_at_s = time.monotonic()
        except Exception as error:
            logger.debug("no news of the machines: %r", error)

    async def _ask_status(self) -> None:
        try:
            status = await asyncio.to_thread(serve.status)
        except Exception:  # Serve's controller is being replaced: what was true still holds
            logger.warning("the state of the models is that of a moment ago", exc_info=True)
            return
        self._ready = {name: _is_ready(entry, status) for name, entry in self._entries.items()}
        self._ready_at_s = time.monotonic()

    async def engine_metrics(self) -> Mapping[str, Sequence[Mapping[str, float]]]:
        local = {n: e.config.application for n, e in self._entries.items() if isinstance(e, Entry)}
        answers = await asyncio.gather(*(_broadcast(a, "Model", "metrics") for a in local.values()))
        return dict(zip(local, answers, strict=True))

    async def gateway_samples(self) -> Sequence[bytes]:
        return await _broadcast(GATEWAY, "Gateway", "samples")


def _is_ready(entry: AnyEntry, status: Any) -> bool:
    if isinstance(entry, PoolEntry):
        return entry.is_up
    return isinstance(entry, RemoteEntry) or is_up(status, entry.config)


async def _health(entry: Entry) -> Health:
    """Of all replicas of a model together."""
    scaling = entry.config.autoscaling
    if scaling is not None and scaling.min_replicas == 0:
        return "well"  # it may sleep, and wakes when it is asked
    answers = await _answers(entry.config.application, "Model", "is_well")
    if any(answer is True for answer in answers):
        return "well"
    is_dead = all(isinstance(answer, RayActorError) for answer in answers)
    return "dead" if is_dead else "silent"


def _share_places(entry: Entry, num_gateways: int) -> None:
    """A gateway lets in its share of what all replicas run at a time; the rest waits here, where
    the keys take turns."""
    engine = entry.config.engine_config(entry.config.path)
    assert isinstance(engine, TorchConfig | VllmConfig)  # it has replicas
    share = entry.config.most_replicas / num_gateways
    entry.queue.places = math.ceil(engine.max_running * share)
    entry.queue.max_waiting = math.ceil(engine.max_waiting * share)


def _handle(application: str, deployment: str = "Model") -> Any:
    return serve.get_deployment_handle(deployment, application, _check_exists=False)


async def _broadcast(application: str, deployment: str, method: str, *arguments: Any) -> list[Any]:
    """Answers of all replicas that answer in time; none of an application that has none."""
    answers = await _answers(application, deployment, method, *arguments)
    return [answer for answer in answers if not isinstance(answer, BaseException)]


async def _answers(application: str, deployment: str, method: str, *arguments: Any) -> list[Any]:
    """Of each replica, what it answers or the error with which it did not."""
    try:
        response = _handle(application, deployment).broadcast(method, *arguments)
        # Not results_async, which gives nothing at all when one replica is late.
        async with asyncio.timeout(_BROADCAST_TIMEOUT_S):
            replicas = await response._fetch_replica_results_async()
    except Exception as error:  # whatever it is, it costs these numbers only
        logger.debug("no %s of %s: %r", method, application, error)
        return [error]
    return await asyncio.gather(*map(_in_time, replicas), return_exceptions=True)


async def _in_time(replica: Any) -> Any:
    async with asyncio.timeout(_BROADCAST_TIMEOUT_S):
        return await replica.get_async()


def is_up(status: Any, model: ModelConfig) -> bool:
    """Whether it has a replica, or sleeps and will have one when it is asked."""
    app = status.applications.get(model.application)
    if app is None:
        return False
    sleeps = model.autoscaling is not None and model.autoscaling.min_replicas == 0
    running = sum(d.replica_states.get("RUNNING", 0) for d in app.deployments.values())
    return running > 0 or (sleeps and app.status == "RUNNING")
