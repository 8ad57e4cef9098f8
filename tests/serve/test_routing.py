"""Which replica a request goes to, as the router decides that Ray Serve is sent."""

import dataclasses
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`"),
]
CONVERSATIONS = [f"conversation {i}" for i in range(300)]


@dataclasses.dataclass
class Gateway:
    """One process's router, before replicas of these names."""

    router: Any
    names: str = "abc"

    def __post_init__(self) -> None:
        self.router._rebuild_ring(frozenset(map(_id, self.names)))

    async def tries(self, conversation: str) -> list[set[str]]:
        """Names of the replicas of each group."""
        replicas = [SimpleNamespace(replica_id=_id(name)) for name in self.names]
        groups = await self.router.choose_replicas(replicas, _request(conversation))
        return [{replica.replica_id.unique_id for replica in group} for group in groups]

    async def takes(self, conversation: str) -> str:
        (name,) = (await self.tries(conversation))[0]
        return name

    def under_way(self, **counts: int) -> None:
        for name, count in counts.items():
            self.router.replica_queue_len_cache.update(_id(name), count)


def _id(name: str) -> Any:
    from ray.serve._private.common import DeploymentID, ReplicaID

    return ReplicaID(name, DeploymentID("Model", "app"))


def _request(conversation: str) -> Any:
    metadata = SimpleNamespace(session_id=conversation)
    return SimpleNamespace(metadata=metadata, routing_context=SimpleNamespace())


def gateway(names: str = "abc") -> Gateway:
    from ray.serve._private.common import DeploymentHandleSource, DeploymentID

    from apps.serve.deployment import ModelDeployment

    config = ModelDeployment._deployment_config.request_router_config
    made = config.get_request_router_class()(
        DeploymentID("Model", "app"), DeploymentHandleSource.REPLICA
    )
    made.initialize_state(**config.request_router_kwargs)
    return Gateway(made, names)


async def test_every_gateway_sends_a_conversation_to_the_same_replica_and_uses_all() -> None:
    one, other = gateway(), gateway()
    taken = [await one.takes(conversation) for conversation in CONVERSATIONS]
    assert taken == [await other.takes(conversation) for conversation in CONVERSATIONS]
    assert min(Counter(taken)[name] for name in "abc") > 50


async def test_a_lost_replica_moves_its_own_conversations_only() -> None:
    before, after = gateway("abc"), gateway("ac")
    for conversation in CONVERSATIONS:
        was = await before.takes(conversation)
        assert await after.takes(conversation) == was or was == "b"


async def test_a_replica_with_too_much_to_do_is_passed_over_until_it_has_less() -> None:
    one = gateway("ab")
    own = await one.takes("a conversation")
    other = "b" if own == "a" else "a"
    for at_own, at_other, taken in ((12, 4, own), (13, 4, other), (7, 0, own), (8, 0, other)):
        one.under_way(**{own: at_own, other: at_other})
        assert await one.takes("a conversation") == taken, (at_own, at_other)
    one.under_way(**{own: 0, other: 0})
    assert await one.takes("a conversation") == own


async def test_no_load_makes_a_replica_take_more_than_the_bound() -> None:
    one, counts = gateway(), Counter(a=0, b=0, c=0)
    for conversation in ["the same"] * 50 + CONVERSATIONS:
        counts[await one.takes(conversation)] += 1
        one.under_way(**counts)
        assert max(counts.values()) <= 8 + 1.25 * min(counts.values()) + 1


@pytest.mark.parametrize(
    ("silent", "offered"), [("", "abc"), ("a", "bc"), ("ab", "c"), ("abc", "abc")]
)
async def test_silent_replicas_are_left_out_where_there_are_others(
    monkeypatch: pytest.MonkeyPatch, silent: str, offered: str
) -> None:
    monkeypatch.setattr("apps.serve.replica.exchange.SILENT_REPLICAS", set(silent))
    one = gateway()
    assert {await one.takes(conversation) for conversation in CONVERSATIONS} == set(offered)
    anyone = [(await one.tries(""))[0] for _ in range(40)]
    assert set.union(*anyone) == set(offered) and {len(two) for two in anyone} <= {1, 2}


async def test_a_replica_that_does_not_even_tell_its_load_is_not_all_that_is_tried() -> None:
    first, second = await gateway().tries("a conversation")
    assert len(first) == 1 and len(second) == 2
