"""Judge calls on Ray: tasks that each run a chunk with asyncio, and one coordinator for all.

A task is a process (about 140 MB), a call is a coroutine: hundreds of calls in flight need two
processes, not hundreds. The coordinator is an actor beside the driver, where the folder is. It
holds requests/min, tokens/min and calls in flight for all tasks, is the folder's single writer and
keeps the budget. A task that dies with its node is run again: the journal tells what is stored.
"""

# Ray's own types are partly unknown:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import asyncio
import importlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, TypeAlias, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import (
    ActorDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util import metrics
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from apps.common.errors import CriaError
from apps.eval.calls.client import Client, complete, connect
from apps.eval.calls.journal import read_raw
from apps.eval.calls.reply import Reply
from apps.eval.judging.asking import remaining
from apps.eval.judging.call import Call
from apps.eval.judging.coordinator import Coordinator, RemoteGate, RemoteLedger
from apps.eval.judging.job import Job, OnProgress, RunResult, Tally
from apps.eval.judging.loop import Caller

POLL_S = 0.25
TASK_CPUS = 0.25
TASK_TRIES = 3
LAST_REPLIES_S = 20.0
"""Where a run ends early, what takes longer is charged as sent; Ctrl-C again ends at once."""
COORDINATOR_CALLS = 10_000
"""most that wait for a place at once"""
_Actor: TypeAlias = "ActorHandle[Coordinator]"
CoordinatorActor: Any = ray.remote(Coordinator)


COUNTERS = {
    "calls_total": "Judge calls whose response was stored.",
    "errors_total": "Judge calls that failed and were, or will be, sent again.",
    "rate_limited_total": "Judge calls that the endpoint refused for their rate.",
}
GAUGES = {
    "calls_left": "Judge calls of this run that have no response yet.",
    "calls_in_flight": "Judge calls that are with the endpoints now.",
    "requests_per_min": "The rate at which calls go out now: refusals lower it.",
    "usd": "US dollars charged to the folder, certainly or possibly, by all its runs.",
    "max_usd": "What --max-usd allows for the folder.",
}
"""What Prometheus reads as ray_cria_eval_<name>."""


class RunMetrics:
    """Shows a run to Prometheus, from the process of the command."""

    def __init__(self, num_calls: int, max_usd: float | None) -> None:
        self._num_calls = num_calls
        self._counters = {n: metrics.Counter(f"cria_eval_{n}", h) for n, h in COUNTERS.items()}
        self._gauges = {n: metrics.Gauge(f"cria_eval_{n}", h) for n, h in GAUGES.items()}
        self._counted = dict.fromkeys(COUNTERS, 0.0)
        if max_usd is not None:
            self._gauges["max_usd"].set(max_usd)

    def show(self, stored: int, spent_usd: float, gate: Mapping[str, float]) -> None:
        """What the coordinator says of the run so far."""
        self._gauges["usd"].set(spent_usd)
        # A judge that was asked again has more responses than calls.
        self._gauges["calls_left"].set(max(0, self._num_calls - stored))
        self._gauges["calls_in_flight"].set(gate.get("in_flight", 0.0))
        self._gauges["requests_per_min"].set(gate.get("requests_per_min", 0.0))
        totals = {"calls_total": float(stored)}
        totals |= {f"{name}_total": gate.get(name, 0.0) for name in ("errors", "rate_limited")}
        for name, total in totals.items():
            if total > self._counted[name]:
                self._counters[name].inc(total - self._counted[name])
                self._counted[name] = total


class _Remote:
    """An actor's methods as plain coroutines."""

    def __init__(self, actor: _Actor) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        method = getattr(self._actor, name)

        async def call(*args: object) -> object:
            try:
                return await method.remote(*args)
            except RayTaskError as error:
                raise (error.cause if isinstance(error.cause, CriaError) else error) from None

        return call


@ray.remote(num_cpus=TASK_CPUS, max_retries=0)
def judge_chunk(job: Job, calls: Sequence[Call], coordinator: _Actor, holder: str) -> Tally:
    return asyncio.run(_judge_chunk(job, calls, cast(Coordinator, _Remote(coordinator)), holder))


async def _judge_chunk(
    job: Job, calls: Sequence[Call], coordinator: Coordinator, holder: str
) -> Tally:
    async with AsyncExitStack() as stack:
        clients = {
            judge: [await stack.enter_async_context(connect(endpoint)) for endpoint in endpoints]
            for judge, endpoints in job.endpoints.items()
        }

        async def ask(call: Call, number: int) -> Reply:
            client = clients[call.judge][number]
            return await complete(client, call.sent_messages, call.parameters)

        caller = Caller(
            ask=ask,
            gates={judge: RemoteGate(coordinator, holder, judge) for judge in clients},
            ledger=RemoteLedger(coordinator, holder),
            prices=job.prices,
            persistence=job.persistence,
            holder=holder,
            proven=job.proven,
        )
        tally = await caller.make(calls)
        tally.learned |= learned(clients)
        return tally


def learned(clients: Mapping[str, Sequence[Client]]) -> set[str]:
    """What the endpoints of the judges refused, in sentences."""
    return {
        f"{judge}: {sentence}"
        for judge, endpoints in clients.items()
        for client in endpoints
        for sentence in client.fit.learned
    }


@ray.remote(num_cpus=TASK_CPUS)
def _warm() -> None:
    """Has a worker import what a chunk needs while the coordinator starts."""
    importlib.import_module("aiohttp")


def run(job: Job, on_progress: OnProgress) -> RunResult:
    """Makes all calls of a job on the connected Ray."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    coordinator = CoordinatorActor.options(
        num_cpus=0, max_concurrency=COORDINATOR_CALLS, scheduling_strategy=here
    ).remote(job.limits, job.directory, job.max_usd)
    for _ in range(job.num_tasks if job.endpoints else 0):
        _warm.remote()
    try:
        # Only now is the folder ours: a killed run's writer may have stored more until here.
        _get(coordinator.begin.remote())
        left = remaining(job.calls, read_raw(job.directory), job.persistence.max_asks)
        shown = RunMetrics(len(left), job.max_usd)

        def tell(stored: int, spent_usd: float, gate: dict[str, float]) -> None:
            shown.show(stored, spent_usd, gate)
            on_progress(stored, spent_usd, gate)

        tallies = _run_tasks(replace(job, calls=tuple(left)), coordinator, tell)
        stored, spent_usd, state = _get(coordinator.state.remote())
        tell(stored, spent_usd, state)
        lost: dict[str, dict[int, str]] = _get(coordinator.lost.remote())
        return RunResult(tally=_sum(tallies), spent_usd=spent_usd, gate=state, lost_endpoints=lost)
    finally:
        ray.kill(coordinator)


def _run_tasks(job: Job, coordinator: _Actor, on_progress: OnProgress) -> list[Tally]:
    settings = ray.put(replace(job, calls=()))
    running: dict[ray.ObjectRef[Tally], tuple[str, Sequence[Call], int]] = {}

    def start(holder: str, calls: Sequence[Call], tries: int) -> None:
        task = judge_chunk.remote(settings, calls, coordinator, holder)
        running[task] = (holder, calls, tries)

    for number, chunk in enumerate(_chunks(job.calls, job.num_tasks)):
        start(f"task-{number}", chunk, 1)
    tallies: list[Tally] = []
    try:
        while running:
            done, _ = ray.wait([*running], timeout=POLL_S)
            on_progress(*_get(coordinator.state.remote()))
            for task in done:
                holder, calls, tries = running.pop(task)
                try:
                    tallies.append(_get(task))
                except (WorkerCrashedError, NodeDiedError, OutOfMemoryError):
                    _get(coordinator.forget.remote(holder))
                    if tries >= TASK_TRIES:
                        raise
                    left = remaining(calls, read_raw(job.directory), job.persistence.max_asks)
                    start(f"{holder}+", left, tries + 1)
    finally:
        _end([*running])
    return tallies


def _end(tasks: Sequence[ray.ObjectRef[Tally]]) -> None:
    """Ends tasks whose run is over; what they have in flight is paid for, so it is waited for."""
    if not tasks:
        return
    for task in tasks:
        ray.cancel(task)
    _, late = ray.wait([*tasks], num_returns=len(tasks), timeout=LAST_REPLIES_S)
    for task in late:
        ray.cancel(task, force=True)


def _get(reference: "ray.ObjectRef[Any]") -> Any:
    """`ray.get`, with our own errors as themselves."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, CriaError) else error) from None
    except ActorDiedError as error:
        raise CriaError(
            f"a process that the judging needs died ({error}); run the same command again: what "
            "is stored is not repeated"
        ) from None


def _chunks(calls: Sequence[Call], num_tasks: int) -> list[Sequence[Call]]:
    """Dealt like cards, so that every task gets some of each model and protocol."""
    dealt: dict[int, list[Call]] = defaultdict(list)
    for number, call in enumerate(calls):
        dealt[number % num_tasks].append(call)
    return [*dealt.values()]


def _sum(tallies: Sequence[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.stored += tally.stored
        total.unreadable += tally.unreadable
        total.estimated += tally.estimated
        total.learned |= tally.learned
        total.failed += tally.failed
        total.paid_in_vain += tally.paid_in_vain
        total.rejected += tally.rejected
        total.answered |= tally.answered
        total.stopped |= tally.stopped
        total.lost |= tally.lost
        total.last_error = total.last_error or tally.last_error
    return total
