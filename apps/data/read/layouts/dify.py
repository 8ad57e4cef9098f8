"""Dify's messages: one round each, of query and answer, that name their conversation.

The newest come first, and an answer that was made anew is another round of the same parent:

{"conversation_id": "c", "id": "2", "parent_message_id": "1", "query": "Q2", "answer": "A2", ...}
{"conversation_id": "c", "id": "1", "parent_message_id": null, "query": "Q1", "answer": "A1", ...}
->  {"conversation_id": "c", "rounds": [both]}  ->  Q1, A1, Q2, A2

https://docs.dify.ai/en/api-reference/conversations/list-conversation-messages names the fields.
"""

from collections.abc import Iterable, Iterator, Sequence

from apps.common.json_value import JsonObject
from apps.data.read.record.layout import (
    Layout,
    Names,
    RawConversation,
    Turn,
    Unreadable,
    fields_beside,
    is_set,
    list_of,
    object_of,
    size_of,
    text_of,
)
from apps.data.read.record.metadata import leave_out
from apps.data.read.record.parse import as_line, with_halves

_OWN = ("parent_message_id", "message_files", "retriever_resources", "agent_thoughts", "inputs")
_READ = (
    *("conversation_id", "id", "query", "answer", "parent_message_id", "created_at"),
    *("message_files", "model"),
)
_PARENT = "parent_message_id"
_OF_OLD_VERSIONS = "00000000-0000-0000-0000-000000000000"
"""Parent of a message that comes after the one before it."""


def _is_round(record: JsonObject) -> bool:
    is_said = isinstance(record.get("query"), str) and isinstance(record.get("answer"), str)
    is_of_one = bool(text_of(record, "conversation_id"))
    return is_said and is_of_one and any(key in record for key in _OWN)


def _rounds(record: JsonObject) -> list[JsonObject]:
    """Those of a conversation, or a round alone."""
    if _is_round(record):
        return [record]
    rounds = [one for given in list_of(record.get("rounds")) or () if (one := object_of(given))]
    return rounds if all(map(_is_round, rounds)) else []


def conversation_lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    """JSON lines of rounds as those of conversations; a line that is no round stays itself."""
    by_id: dict[str, list[JsonObject]] = {}
    for line in lines:
        given = object_of(with_halves(line))
        if given is not None and _is_round(given):
            by_id.setdefault(text_of(given, "conversation_id"), []).append(given)
        elif line.strip():
            yield line.rstrip(b"\n") + b"\n"
    for key, rounds in by_id.items():
        whole = as_line({"conversation_id": key, "rounds": [*rounds]})
        for one in [whole] if whole is not None else map(as_line, rounds):  # deeper than can be
            yield (one or b"") + b"\n"


def _read(record: JsonObject, names: Names) -> RawConversation:
    del names
    rounds = _rounds(record)
    if not rounds:
        raise Unreadable("no-messages")
    shown, others = _thread(rounds)
    conversation = RawConversation(source_id=text_of(record, "conversation_id"))
    for one in shown:
        said = (("user", text_of(one, "query")), ("assistant", text_of(one, "answer")))
        conversation.turns += [Turn(role, text, size_of(text)) for role, text in said]
        conversation.media += ["message_files"] if is_set(one.get("message_files")) else []
        conversation.model = text_of(one, "model") or conversation.model
        conversation.ignored += [f"pairs[].{key}" for key in fields_beside(one, _READ)]
    texts = [text_of(one, key) for one in others for key in ("query", "answer")]
    leave_out(conversation, "other_branch", texts)
    return conversation


def _thread(rounds: Sequence[JsonObject]) -> tuple[list[JsonObject], list[JsonObject]]:
    """The rounds from the first to the newest, and those beside them: answers that were made anew,
    and what two pages of an export both have."""
    in_order = _by_time(rounds)
    path: list[JsonObject] = []
    seen: set[str] = set()
    wanted = _OF_OLD_VERSIONS
    for one in reversed(in_order):
        own = text_of(one, "id")
        if wanted not in (own, _OF_OLD_VERSIONS) or (own and own in seen):
            continue
        path.append(one)
        seen.add(own)
        wanted = text_of(one, _PARENT) if _PARENT in one else _OF_OLD_VERSIONS
        if not wanted:
            break
    on_path = set(map(id, path))
    return path[::-1], [one for one in in_order if id(one) not in on_path]


def _by_time(rounds: Sequence[JsonObject]) -> Sequence[JsonObject]:
    """By seconds or dates as texts; the list's order where some have none.

    Of rounds of one second a parent comes before what answers it, and of others the one that a list
    from the newest to the first has later.
    """
    times = [text_of(one, "created_at") for one in rounds]
    if not all(times):
        return rounds
    step = -1 if times[0] > times[-1] else 1
    depths = _depths(rounds)
    order = sorted(range(len(rounds)), key=lambda i: (times[i], depths[i], step * i))
    return [rounds[i] for i in order]


def _depths(rounds: Sequence[JsonObject]) -> list[int]:
    """How many of the others each round comes after, by their parents."""
    parents = {text_of(one, "id"): text_of(one, _PARENT) for one in rounds}
    depths: dict[str, int] = {}
    for own in parents:
        ancestry: list[str] = []
        while own in parents and own not in depths:
            depths[own] = 0  # also ends a ring
            ancestry.append(own)
            own = parents[own]
        for depth, one in enumerate(reversed(ancestry), depths.get(own, -1) + 1):
            depths[one] = depth
    return [depths[text_of(one, "id")] for one in rounds]


LAYOUT = Layout(
    name="dify",
    what="Dify's messages: rounds of query and answer, put together by conversation_id",
    example='{"id": "m1", "conversation_id": "c", "parent_message_id": null, "inputs": {}, '
    '"query": "Which river?", "answer": "The Danube.", "created_at": 1730503863}',
    recognises=lambda record: bool(_rounds(record)),
    read=_read,
    regrouped=conversation_lines,
)
