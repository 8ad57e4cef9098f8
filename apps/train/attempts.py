"""Why an attempt failed, in one sentence as soon as it does; Ray starts the next one.

    Rank 1 on 10.0.0.5 failed: its machine is gone. Training starts again from step 40.

When one rank fails the others fail with it, of connections that break: the sentence is about the
one that began it. Imports neither torch nor Ray, whose controller and workers use it too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from apps.common.errors import CriaError, first_line

_NODE_DIED = "node has died"
_NO_MEMORY = ("OutOfMemory", "memory pressure")
_COLLECTIVE = ("gloo", "NCCL", "peer", "Socket", "TCPStore", "ProcessGroup")
_MAX_CHARACTERS = 400


class Blame(IntEnum):
    """How likely a rank's failure is what made the others fail, most likely first."""

    OWN_SENTENCE = 0
    DIED = 1
    RAISED = 2
    LOST_OTHERS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class RankFailure:
    """What a rank failed of."""

    rank: int
    reason: str
    """one sentence or two"""
    blame: Blame
    is_preempted: bool = False
    """its machine was taken away, which counts as no failure"""
    exit_code: int = CriaError.exit_code


def first_failure(errors: Mapping[int, BaseException]) -> RankFailure:
    """Of the errors of an attempt's ranks, the one that the others follow from."""
    failures = [_failure_of(rank, error) for rank, error in errors.items()]
    return min(failures, key=lambda f: (not f.is_preempted, f.blame, f.rank))


def _failure_of(rank: int, error: BaseException) -> RankFailure:
    died: BaseException | None = getattr(error, "health_check_failure", None)
    if died is not None:  # Ray Train's word for an actor that answers no more
        is_preempted = bool(getattr(died, "preempted", False))
        reason = "its machine was taken back." if is_preempted else _death(died)
        return RankFailure(rank=rank, reason=reason, blame=Blame.DIED, is_preempted=is_preempted)
    if isinstance(error, CriaError):
        return RankFailure(
            rank=rank,
            reason=error.sentence,
            blame=Blame.OWN_SENTENCE,
            exit_code=error.exit_code,
        )
    said = f"{type(error).__name__}: {first_line(error, _MAX_CHARACTERS)}"
    if isinstance(error, RuntimeError) and any(word in said for word in _COLLECTIVE):
        reason = (
            "it lost its connection to another rank, whose process or machine may be gone "
            f"({first_line(error, _MAX_CHARACTERS)})."
        )
        return RankFailure(rank=rank, reason=reason, blame=Blame.LOST_OTHERS)
    return RankFailure(rank=rank, reason=f"{said.rstrip('.')}.", blame=Blame.RAISED)


def _death(error: BaseException) -> str:
    said = f"{type(error).__name__}: {error}"
    if _NODE_DIED in said:
        return "its machine is gone."
    if any(word in said for word in _NO_MEMORY):
        return "Ray ended its process because the machine's memory was full."
    return "its process was killed or crashed; look for an out-of-memory kill there with `dmesg`."


class Attempts:
    """What is known of a run's attempts while they last, on the side of the command."""

    def __init__(self, max_failures: int) -> None:
        """`max_failures` as in FaultConfig: -1 is without limit."""
        self._max_failures = max_failures
        self._num_failures = 0
        self._nodes: dict[int, str] = {}
        self._is_told = False

    def began(self, rank: int, node: str) -> None:
        """A rank was placed on a node."""
        if self._is_told:
            self._nodes.clear()
            self._is_told = False
        self._nodes[rank] = node

    def failed(self, failure: RankFailure) -> bool:
        """Note an attempt's failure; is it news, and is there another attempt?

        Of the last one the command itself tells, as it ends.
        """
        if self._is_told:
            return False
        self._is_told = True
        self._num_failures += not failure.is_preempted
        return self._max_failures < 0 or self._num_failures <= self._max_failures

    def sentence(self, failure: RankFailure) -> str:
        """Which rank, where and why."""
        node = self._nodes.get(failure.rank)
        place = f" on {node}" if node else ""
        return f"Rank {failure.rank}{place} failed: {failure.reason}"
