"""Messages that name their parents: the tree they make, or the list where they make none.

Those of one parent are one question or answer, said again. Where several speak there, a parent is
only what a message replies to, and the list has the order.

    u1 <- a2, u1 <- a3                 a tree: a3 stands for a2
    u1 <- a2, u3 <- a4                 a list of rounds
    u1 <- a2, u1 <- u3, u1 <- a4       a list whose messages all name the first
    a2 <- tool3, a2 <- tool4           results of two calls
"""

from collections.abc import Sequence

from apps.common.json_value import JsonObject
from apps.data.read.record.layout import list_of, text_of
from apps.data.read.record.messages import speaker_in
from apps.data.read.record.roles import role_of

MESSAGE_IDS = ("messageId", "message_id", "uuid", "id")
_PARENTS = ("parentMessageId", "parent_message_uuid", "parent_id", "parentId", "parent")
_ANCESTORS = "ancestors"  # ids from the first message to the parent
LINKS = frozenset((*_PARENTS, _ANCESTORS))


def parents_of(messages: Sequence[JsonObject]) -> list[int]:
    """The place of each message's parent: -1 for none, lower for one that is not in the list.

    Each is the child of the one before where ids are missing, no parent is there, or answers name
    none. So too where the speakers make no tree.
    """
    ids = [text_of(message, *MESSAGE_IDS) for message in messages]
    places = {key: i for i, key in enumerate(ids)}
    names = list(map(_parent_of, messages))
    is_tree = "" not in places and len(places) == len(ids) and places.keys() & set(names)
    roles = list(map(_role, messages))
    roots = (role for role, name in zip(roles[1:], names[1:], strict=True) if name not in places)
    in_order = list(range(-1, len(messages) - 1))
    if not is_tree or "assistant" in roots:
        return in_order
    missing = {name: -1 - i for i, name in enumerate(dict.fromkeys(["", *names]))}
    parents = [places.get(name, missing[name]) for name in names]
    asks_anew = any(name and role == "user" for name, role in zip(names, roles, strict=True))
    for i, role in enumerate(roles[:-1]):  # what the system says goes before a first question
        if parents[i] == parents[i + 1] < 0 and role == "system":
            parents[i + 1] = i
    are_rounds = not asks_anew and _has_several_roots(parents, roles)
    return in_order if are_rounds or _mixes_roles(parents, roles) else parents


def _has_several_roots(parents: Sequence[int], roles: Sequence[str]) -> bool:
    """Several questions that name no parent: 1 <- 2, 3 <- 4, of which only the answers name one.

    Below the system's words a question without an answer takes the place of the one before.
    """
    roots = [i for i, parent in enumerate(parents) if parent == -1]
    return len(roots) > 1 and (roles[0] != "system" or len(set(roots) & set(parents)) > 1)


def _mixes_roles(parents: Sequence[int], roles: Sequence[str]) -> bool:
    """Whether messages of one parent have several speakers or are results of tools, or one answers
    its own speaker."""
    if len(set(parents)) == len(parents):
        return False
    siblings: dict[int, list[str]] = {}
    for parent, role in zip(parents, roles, strict=True):
        if role != "system":
            siblings.setdefault(parent, []).append(role)
    return any(
        len(set(own)) > 1
        or own[:2] == ["tool", "tool"]
        or (parent >= 0 and roles[parent] == own[0])
        for parent, own in siblings.items()
        if own != ["tool"]
    )


def _parent_of(message: JsonObject) -> str:
    ancestors = list_of(message.get(_ANCESTORS))
    return str(ancestors[-1]) if ancestors else text_of(message, *_PARENTS)


def _role(message: JsonObject) -> str:
    """A role, or the name of somebody whose role is not known."""
    name = speaker_in(message)
    return role_of(name, {}) or str(name)
