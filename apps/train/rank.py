"""What Ray Train runs on each worker: the loop, tied to Ray's notices, metrics and the relay."""

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypedDict, cast

import ray
import ray.train
from ray.actor import ActorProxy
from ray.util.metrics import Gauge

from apps.common.files import config as configs
from apps.common.packs import open_pack
from apps.train.config import RunConfig
from apps.train.loop.record import Began, Event, Stepped, StepRecord, Stopped, Told, figures
from apps.train.relay import INTERVAL_S, Relay, stop_asker

if TYPE_CHECKING:
    from apps.train.checkpoint.checkpoint import RunMark

GAUGES = {
    "checkpoint_time_s": "When the newest whole checkpoint was saved, unix time; before the first "
    "one, when the command was started.",
    "step": "Newest step.",
    "loss": "Mean loss of a supervised token in the newest step.",
    "val_loss": "The same over the validation rows, when it was measured last.",
    "lr": "Learning rate of the newest step.",
    "grad_norm": "Norm of the newest step's gradient, before it was clipped.",
    "tokens_per_s": "Tokens a second of all ranks.",
    "supervised_tokens_per_s": "The same, of tokens that count in the loss.",
    "mfu": "Share of the devices' peak that the model's arithmetic uses, attention in full.",
    "mfu_packed": "The same, attention only within conversations.",
    "memory_gb": "Most GPU memory that rank 0 has used; on CPUs, what it holds now, GB.",
    "data_wait_s": "Seconds of the newest step spent waiting for rows.",
    "checkpoint_s": "Seconds of the newest step spent in its checkpoint.",
    "usd": "US dollars so far, at the stated price.",
    "usd_to_go": "US dollars that the steps left will cost.",
}
"""What Prometheus reads as ray_cria_train_<name>, from rank 0."""


class Payload(TypedDict):
    """What each rank is started with."""

    config: dict[str, object]
    commit: "RunMark"
    relay: "ActorProxy[Relay]"
    started_s: float
    """Unix time at which the command was started."""
    token: str
    """of the command, for the run's fence"""
    number: int
    """of the command, for the run's fence"""
    environment: dict[str, str]
    """for the trackers, whose keys the user's machine knows and the workers' may not"""


def rank_main(given: dict[str, object]) -> None:
    """Of a Payload: train to the end, or until asked to stop."""
    from apps.train.batches.micro_batch import PackRows
    from apps.train.checkpoint import checkpoint
    from apps.train.checkpoint.fence import Fence, Superseded
    from apps.train.loop.loop import Hooks, TrainingStopped
    from apps.train.loop.worker import work

    payload = cast(Payload, given)
    config = configs.from_dict(RunConfig, payload["config"])
    os.environ |= payload["environment"]
    relay = payload["relay"]

    def tell(event: Event) -> None:
        ray.get(relay.put.remote(event))

    context = ray.train.get_context()
    tell(Began(context.get_world_rank(), ray.util.get_node_ip_address()))
    pack = open_pack(config.data)
    os.environ.setdefault("LOCAL_RANK", str(context.get_local_rank()))
    preemption = _Preemption()
    gauges = {name: Gauge(f"cria_train_{name}", text) for name, text in GAUGES.items()}
    saved = gauges["checkpoint_time_s"]
    if context.get_world_rank() == 0:
        saved.set(checkpoint.saved_s(config.out) or payload["started_s"])
    try:
        work(
            config,
            PackRows(pack.split("train"), pack.info.pad_id),
            PackRows(pack.split("val"), pack.info.pad_id),
            commit=payload["commit"],
            fence=Fence(config.out, payload["token"], payload["number"], payload["started_s"]),
            hooks=Hooks(
                on_step=_step_sender(tell, gauges),
                on_commit=lambda: saved.set(time.time()),
                on_event=lambda name, fields: tell(Told(name, fields)),
                stopped=stop_asker(relay),
                preempted=preemption.is_near,
                after_preemption=preemption.wait,
            ),
        )
    except (TrainingStopped, Superseded) as error:
        tell(Stopped(error))  # the same on every rank; a retry would only repeat it


def _step_sender(
    tell: Callable[[Event], None], gauges: Mapping[str, Gauge]
) -> Callable[[StepRecord], None]:
    sent_s = 0.0

    def on_step(record: StepRecord) -> None:
        nonlocal sent_s
        gauges["step"].set(record["step"])
        for name, value in figures(record):
            if name in gauges:
                gauges[name].set(value)
        is_last = record["step"] == record["num_steps"]
        if is_last or "val_loss" in record or time.monotonic() - sent_s >= INTERVAL_S:
            sent_s = time.monotonic()
            tell(Stepped(record))

    return on_step


class _Preemption:
    """Ray's preemption notice, answered once a notice."""

    def __init__(self) -> None:
        self._answered: set[tuple[int | None, tuple[str, ...]]] = set()
        self._deadline_ms: int | None = None

    def is_near(self) -> bool:
        info = ray.train.get_preemption_info()
        if info is None:
            return False
        notice = (info.deadline_ms, tuple(info.preempted_node_ids))
        if notice in self._answered:
            return False
        self._answered.add(notice)
        self._deadline_ms = info.deadline_ms
        return True

    def wait(self) -> None:
        """Until the machine is gone: Ray stops the workers at the deadline.

        Without a deadline training goes on: nobody knows for how long.
        """
        if self._deadline_ms is not None:
            time.sleep(max(self._deadline_ms / 1000 - time.time(), 0) + 5)
