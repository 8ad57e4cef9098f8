"""Which replica a request goes to: the one that has computed its conversation's earlier turns.

A conversation's replica follows from its digest and from which replicas there are (a ring of
hashes, Ray Serve's own). So all gateways agree without a word, and none has to remember anything.
A replica with too much to do is passed over for the next on the ring, which bounds how uneven the
load becomes (Mirrokni et al., https://arxiv.org/abs/1608.01350):

    requests under way    A 12, B 4: at most 8 + 1.25 * 4 = 13, so A still takes its conversations'
                          A 13, B 4: they go to B until A has less to do
"""

import random
from collections.abc import Sequence

from ray.serve._private.common import ReplicaID
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
from ray.serve.request_router import PendingRequest, RunningReplica

from apps.serve.replica import exchange

SLACK, SHARE = 8, 1.25
"""A replica takes its own conversations below SLACK + SHARE times the least that one has to do.
Eight more in a batch cost less than a conversation computed anew: of 16 chats on two replicas, 97 %
of what one replica has cached stays so; with a slack of 4 it was 91 %."""


class ConversationRouter(ConsistentHashRouter):
    """Only among the replicas that this process hears of, where there are any.

    Serve counts what it sent to each, so one that answers nothing soon looks the least busy.
    """

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Groups to try one after another; in each, the one with the least to do is taken."""
        # Serve sends this class with copies of what its module holds, but modules as such.
        silent = exchange.SILENT_REPLICAS
        awake = [r for r in candidate_replicas if r.replica_id.unique_id not in silent]
        awake = awake or list(candidate_replicas)
        if not awake:
            return []
        any_two = random.sample(awake, min(2, len(awake)))
        if pending_request is None:
            return [any_two]
        pending_request.routing_context.should_backoff = True
        if not (conversation := pending_request.metadata.session_id):
            return [any_two]
        by_id = {r.replica_id: r for r in awake}
        ranked = [r for r in self._lookup_ranked_replicas(conversation) if r in by_id]
        own = first_within(ranked, [self._under_way(r) for r in ranked])
        # Behind it, for when it does not even say how much it has to do.
        return [any_two] if own is None else [[by_id[own]], any_two]

    def _under_way(self, replica: ReplicaID) -> int:
        """As Serve knows it; what was asked for nothing for 10 s is taken to be idle."""
        return self.replica_queue_len_cache.get(replica) or 0


def first_within(ranked: Sequence[ReplicaID], under_way: Sequence[int]) -> ReplicaID | None:
    """The first that has not too much to do beside the least busy; None where there is none."""
    most = SLACK + SHARE * min(under_way, default=0)
    fits = (replica for replica, n in zip(ranked, under_way, strict=True) if n < most)
    return next(fits, None)
