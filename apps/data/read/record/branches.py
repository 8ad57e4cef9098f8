"""Lists of messages that name their parents: an app shows one branch of them at a time.

A question that was edited and an answer that was made anew stand beside the first one. The
branch with the last leaf is the conversation, as the app shows it. What the others say is counted.

    1 <- 2 <- 3, 1 <- 4   ->   1, 4      where 2 and 4 are of one speaker
    {"sender": "user", "text": "Hi", "children": [
        {"sender": "assistant", "text": "Yo", "children": []}]}   ->   Hi, Yo
"""

from collections.abc import Sequence

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.record.layout import list_of, object_of, text_of
from apps.data.read.record.links import LINKS, MESSAGE_IDS, parents_of

_CHILDREN = "children"


def branches_of(
    messages: list[JsonValue], last: str = ""
) -> tuple[list[JsonValue], list[JsonObject]]:
    """The branch that ends with `last` or the last leaf, and the messages beside it.

    Where nothing branches, the whole list.
    """
    if not messages or not (last or _may_branch(messages)):
        return messages, []
    given = [message for one in messages if (message := object_of(one)) is not None]
    if len(given) < len(messages):
        return messages, []
    if any(map(_nested, given)):
        given, parents = _unfolded(given)
    else:
        parents = parents_of(given)
    path = _path(given, parents, last)
    on_path = set(path)
    return [given[i] for i in path], [one for i, one in enumerate(given) if i not in on_path]


def _may_branch(messages: Sequence[JsonValue]) -> bool:
    """Whether the last message names a parent, or the first holds its answers."""
    first, last = (object_of(one) or {} for one in (messages[0], messages[-1]))
    if len(first) <= 2 and len(last) <= 2:
        return False
    return not LINKS.isdisjoint(last) or bool(_nested(first))


def _nested(message: JsonObject) -> list[JsonObject]:
    """The answers that lie in a message."""
    children = list_of(message.get(_CHILDREN)) or ()
    return [one for child in children if (one := object_of(child))]


def _unfolded(roots: Sequence[JsonObject]) -> tuple[list[JsonObject], list[int]]:
    """Messages and those in them as one list, and the place of each one's parent; -1 for none."""
    messages: list[JsonObject] = []
    parents: list[int] = []
    waiting = [(root, -1) for root in reversed(roots)]
    while waiting:
        message, parent = waiting.pop()
        waiting += [(child, len(messages)) for child in reversed(_nested(message))]
        messages.append({key: value for key, value in message.items() if key != _CHILDREN})
        parents.append(parent)
    return messages, parents


def _path(messages: Sequence[JsonObject], parents: Sequence[int], last: str) -> Sequence[int]:
    """Places from the first message to the one named `last`, or to the last leaf.

    Where none is named and nothing branches it is all of them, in the list's order unless one path
    links them.
    """
    inner = set(parents)
    named = [i for i, one in enumerate(messages) if last and text_of(one, *MESSAGE_IDS) == last]
    leaves = [i for i in range(len(messages)) if i not in inner]
    place = (named or leaves or [len(messages) - 1])[-1]
    path: dict[int, None] = {}
    while place >= 0 and place not in path:
        path[place] = None
        place = parents[place]
    is_one = named or len(inner) < len(parents) or len(path) == len(messages)
    return list(path)[::-1] if is_one else range(len(messages))
