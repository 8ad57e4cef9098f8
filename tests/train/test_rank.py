"""How a rank takes Ray's notices; what Ray does with the answers is in test_chaos.py."""

import time

import pytest
from ray.train import PreemptionInfo

from apps.train import rank


@pytest.fixture
def notice(monkeypatch):
    """Sets what Ray says of a preemption."""
    said: list[PreemptionInfo | None] = [None]
    monkeypatch.setattr("ray.train.get_preemption_info", lambda: said[0])

    def give(deadline_ms: int | None, *nodes: str) -> None:
        ranks = {node: [rank] for rank, node in enumerate(nodes or ("a",))}
        said[0] = PreemptionInfo(deadline_ms=deadline_ms, preempted_node_to_ranks=ranks)

    return give


def test_a_notice_is_answered_once_and_a_new_one_again(notice) -> None:
    preemption = rank._Preemption()
    assert not preemption.is_near()
    for deadline_ms in (1_000, 2_000):
        notice(deadline_ms)
        assert preemption.is_near()
        assert not preemption.is_near()


def test_a_notice_without_a_deadline_is_answered_and_training_goes_on(notice) -> None:
    preemption = rank._Preemption()
    notice(None)
    assert preemption.is_near()
    started_s = time.monotonic()
    preemption.wait()
    assert time.monotonic() - started_s < 1
    assert not preemption.is_near()


def test_a_second_machine_that_goes_is_answered_though_the_deadline_is_the_same(notice) -> None:
    preemption = rank._Preemption()
    for nodes in (("a",), ("a", "b")):
        notice(None, *nodes)
        assert preemption.is_near()
        assert not preemption.is_near()
