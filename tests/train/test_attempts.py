"""Which sentence an attempt's failure gets; what Ray makes of it is in test_failed_attempts.py."""

import io
import json

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from apps.common.command.events import Reporter
from apps.common.errors import StorageError
from apps.train.attempts import Attempts, first_failure
from apps.train.loop.record import Began, Failed
from apps.train.progress import Shown

BROKEN = RuntimeError("[/third_party/gloo/pair.cc:534] Connection closed by peer [10.0.0.5]:41")
FULL = StorageError("A checkpoint could not be written to /run (No space left on device).")


def lost(error: Exception) -> WorkerHealthCheckFailedError:
    return WorkerHealthCheckFailedError("A worker health check failed.", error)


DIED = lost(ActorDiedError())
NODE = lost(RayActorError(error_msg="The actor died because its node has died. Node Id: 4f"))


@pytest.mark.parametrize(
    ("errors", "rank", "reason"),
    [
        ({0: BROKEN, 1: FULL}, 1, FULL.sentence),
        ({0: BROKEN, 1: DIED}, 1, "its process was killed or crashed; look for an out-of-memory"),
        ({0: BROKEN, 1: NODE}, 1, "its machine is gone."),
        ({0: lost(OutOfMemoryError("low"))}, 0, "Ray ended its process because the machine's mem"),
        ({0: BROKEN, 1: ValueError("of two\nlines")}, 1, "ValueError: of two."),
        (
            {1: BROKEN},
            1,
            "it lost its connection to another rank, whose process or machine may be gone "
            "([/third_party/gloo",
        ),
        ({0: FULL, 1: lost(RayActorError(preempted=True))}, 1, "its machine was taken back."),
    ],
)
def test_the_rank_that_made_the_others_fail_is_told(errors, rank, reason) -> None:
    failure = first_failure(errors)
    assert failure.rank == rank
    assert failure.reason.startswith(reason)


class _Bar:
    def advance(self, amount: float = 1, **fields: object) -> None: ...

    def total(self, amount: float) -> None: ...


def told(max_failures: int, *attempts: dict[int, Exception]) -> list[str]:
    """Reasons told of attempts whose ranks 0 and 1 are on two machines."""
    stream = io.StringIO()
    shown = Shown(Reporter("json", stream), _Bar(), Attempts(max_failures), lambda: 40)
    for errors in attempts:
        shown.take([Began(rank, f"10.0.0.{4 + rank}") for rank in (0, 1)])
        shown.take([Failed(first_failure(errors))] * 2)  # asked for twice while a machine goes
    return [json.loads(line)["reason"] for line in stream.getvalue().splitlines()]


def test_each_failed_attempt_is_told_once_with_its_machine_and_the_step_to_come() -> None:
    assert told(3, {0: BROKEN, 1: NODE}) == [
        "Rank 1 on 10.0.0.5 failed: its machine is gone. Training starts again from step 40."
    ]
    assert len(told(-1, *[{0: FULL}] * 9)) == 9


def test_the_last_one_is_left_to_the_command_and_a_preemption_is_none() -> None:
    taken = {1: lost(RayActorError(preempted=True))}
    assert len(told(2, {0: FULL}, {0: FULL}, {0: FULL})) == 2
    assert len(told(1, taken, taken, {0: FULL}, {0: FULL})) == 3


def test_storage_that_cannot_be_asked_for_the_step_hides_no_failure() -> None:
    def unreachable() -> int:
        if shown_once:
            raise StorageError("s3://bucket failed.")
        shown_once.append(True)
        return 0

    shown_once: list[bool] = []
    stream = io.StringIO()
    shown = Shown(Reporter("json", stream), _Bar(), Attempts(1), unreachable)
    shown.take([Failed(first_failure({0: FULL}))])
    assert stream.getvalue().endswith('again from the newest checkpoint."}\n')
