"""OpenAssistant's trees: which path is the conversation, and what is left beside it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from apps.common.json_value import JsonObject
from apps.data.read.record.flags import yes_or_no


@dataclass(slots=True)
class Node:
    """A message, and the ones that answer it."""

    message: JsonObject
    replies: list["Node"] = field(default_factory=list["Node"])


def best_path(root: Node) -> tuple[list[Node], list[Node]]:
    """The path of the best-ranked replies, and the other nodes.

    Rank 0 is the best; unranked replies come after ranked ones, in the order of the file. Replies
    that were deleted or failed review are on no path.

    Iterative, for a tree may be deeper than Python's stack.
    """
    path: list[Node] = []
    node: Node | None = root
    while node is not None:
        path.append(node)
        live = [reply for reply in node.replies if is_live(reply.message)]
        node = min(live, key=_rank, default=None)
    on_path = set(map(id, path))
    others = [node for node in all_nodes(root) if id(node) not in on_path]
    return path, others


def all_nodes(root: Node) -> Iterable[Node]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(node.replies))


def is_live(message: JsonObject) -> bool:
    reviewed = message.get("review_result")
    has_failed = reviewed is not None and yes_or_no(reviewed) is False
    return not has_failed and not yes_or_no(message.get("deleted"))


def _rank(node: Node) -> float:
    """A table may have written it as a text; NaN and what is no number come last."""
    rank = node.message.get("rank")
    try:
        number = float(rank) if isinstance(rank, int | float | str) else math.inf
    except ValueError:
        return math.inf
    return math.inf if math.isnan(number) else number
