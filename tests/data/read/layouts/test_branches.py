"""Apps' exports name parents: one branch is the conversation. Preferences name good answers."""

import json
from typing import Any

import pytest

from apps.data.read.names import parse_map
from apps.data.read.reader import Reading, read_record
from apps.data.read.record.layout import RawConversation


def read(record: dict[str, Any], names: str = "") -> RawConversation:
    return read_record(record, Reading(names=parse_map(names)))[0]


def said(conversation: RawConversation) -> list[tuple[str, str]]:
    return [(turn.role[0], turn.text) for turn in conversation.turns]


def others(conversation: RawConversation) -> list[tuple[str, int, int]]:
    return [(left.reason, left.messages, left.bytes) for left in conversation.left_out]


TREE = [
    ("1", None, "user", "Q"),
    ("2", "1", "assistant", "A first"),
    ("3", "1", "assistant", "A anew"),
    ("4", "3", "user", "More"),
    ("5", "4", "assistant", "B"),
]
SHOWN = [("u", "Q"), ("a", "A anew"), ("u", "More"), ("a", "B")]
NAMES = {
    "LibreChat": ("messageId", "parentMessageId", "sender", "text"),
    "Open WebUI": ("id", "parentId", "role", "content"),
    "others": ("id", "parent_id", "from", "value"),
    "more": ("id", "parent", "author", "text"),
}


@pytest.mark.parametrize("app", NAMES)
def test_of_branches_in_a_list_the_last_is_the_conversation(app: str) -> None:
    messages = [dict(zip(NAMES[app], row, strict=True)) for row in TREE]
    conversation = read({"messages": messages})
    assert (said(conversation), others(conversation)) == (SHOWN, [("other_branch", 1, 7)])


def test_ancestors_and_children_by_their_ids_are_branches_too() -> None:
    """As HuggingChat has them, below an empty system message."""
    above = {"1": ["0"], "2": ["0", "1"], "3": ["0", "1"], "4": ["0", "1", "3"]}
    above["5"] = [*above["4"], "4"]
    rows = [("0", None, "system", "Be brief."), *TREE]
    messages = [
        {"id": key, "from": role, "content": text, "ancestors": above.get(key, []), "children": []}
        for key, _, role, text in rows
    ]
    assert said(read({"messages": messages})) == [("s", "Be brief."), *SHOWN]


def test_answers_that_lie_in_their_questions_are_read() -> None:
    """As LibreChat's recursive export has them."""

    def node(row: int, *children: dict[str, Any]) -> dict[str, Any]:
        _, _, role, text = TREE[row]
        return {"sender": role, "text": text, "model": "m", "children": list(children)}

    tree = node(0, node(1), node(2, node(3, node(4))))
    conversation = read({"messages": [tree]})
    assert (said(conversation), others(conversation)) == (SHOWN, [("other_branch", 1, 7)])
    assert conversation.ignored == ["messages[].model"] * 4
    deep = node(4)
    for i in range(5000):
        deep = node(3 - i % 2 * 2, deep)
    assert len(read({"messages": [deep]}).turns) == 5001


def test_what_the_system_says_and_an_edited_first_question() -> None:
    rows = [("0", None, "system", "Be brief."), *TREE[:2], ("9", None, "user", "Q edited")]
    messages = [dict(zip(NAMES["Open WebUI"], row, strict=True)) for row in rows]
    conversation = read({"messages": messages})
    assert said(conversation) == [("u", "Q edited")]
    del messages[-1]
    assert said(read({"messages": messages})) == [("s", "Be brief."), ("u", "Q"), ("a", "A first")]


@pytest.mark.parametrize(
    "change",
    [
        lambda row: {**row, "parentId": None},
        lambda row: {**row, "parentId": "x"},
        lambda row: {**row, "id": "1"},
        lambda row: {**row, "parentId": "1" if row["id"] == "5" else None},
    ],
)
def test_a_list_in_which_nothing_branches_stays_as_it_is(change: Any) -> None:
    rows = [dict(zip(NAMES["Open WebUI"], row, strict=True)) for row in TREE]
    conversation = read({"messages": list(map(change, rows))})
    assert len(conversation.turns) == 5 and conversation.left_out == []


def test_a_list_that_begins_with_the_newest_is_read_from_the_first() -> None:
    rows = [TREE[0], *TREE[2:]]
    messages = [dict(zip(NAMES["Open WebUI"], row, strict=True)) for row in reversed(rows)]
    assert said(read({"messages": messages})) == SHOWN


@pytest.mark.parametrize(
    "links",
    [
        "u a1 u a3 u a5",
        "u a1 u",
        "s u a2 u a4",
        "u a1 u1 a1",
        "u a1 u2 a1 u1 a5",
        "u a1 t2 t2 a2",
        "u a1 t2 t2 a4 u5 a6",
        "u a1 t2 a2",
        "u u1 a1 u2 a4",
    ],
)
def test_links_that_make_no_tree_of_questions_and_answers_lose_nothing(links: str) -> None:
    roles = {"u": "user", "a": "assistant", "t": "tool", "s": "system"}
    messages = [
        {"id": i, "parentId": int(link[1:]) if link[1:] else None, "role": role, "content": f"{i}"}
        for i, link in enumerate(links.split(), 1)
        if (role := roles[link[0]])
    ]
    conversation = read({"messages": messages})
    assert [text for _, text in said(conversation)] == [f"{one['id']}" for one in messages]
    assert conversation.left_out == []


def test_speakers_as_objects_make_branches_too() -> None:
    names = ("id", "parent", "author", "content")
    messages = [dict(zip(names, row, strict=True)) for row in TREE]
    written = [{**one, "author": {"role": one["author"]}} for one in messages]
    assert said(read({"messages": written})) == SHOWN


QUESTION = {"from": "human", "value": "Q"}
GOOD, BAD = {"from": "gpt", "value": "Good"}, {"from": "gpt", "value": "Bad"}


@pytest.mark.parametrize(
    ("beside", "ignored"),
    [
        ({"chosen": GOOD, "rejected": BAD}, ["rejected"]),
        ({"chosen": [GOOD], "rejected": [BAD]}, ["rejected"]),
        ({"completion": "Good"}, []),
        ({"chosen": json.dumps(GOOD), "rejected": json.dumps(BAD)}, ["rejected"]),
        ({"chosen": str([GOOD]), "rejected": str([BAD])}, ["rejected"]),
        ({"chosen": "Good", "rejected": "Bad"}, ["rejected"]),
        ({"chosen": "model_a", "response": "Good"}, ["chosen"]),
        ({"chosen": [QUESTION, GOOD], "response": "Good"}, ["chosen"]),
    ],
)
def test_an_answer_beside_the_list_is_the_last_turn(beside: Any, ignored: list[str]) -> None:
    conversation = read({"conversations": [QUESTION], **beside})
    assert said(conversation) == [("u", "Q"), ("a", "Good")]
    assert conversation.ignored == ignored
    told = {"from": "system", "value": "S"}
    assert said(read({"conversations": [told], **beside})) == [("s", "S")]
    whole = read({"conversations": [QUESTION, BAD], **beside})
    assert said(whole) == [("u", "Q"), ("a", "Bad")]
    assert whole.ignored == list(beside)


def test_the_name_of_the_better_column_is_no_answer() -> None:
    beside = {"chosen": "model_a", "response_a": "Good", "response_b": "Bad"}
    conversation = read({"conversations": [QUESTION], **beside})
    assert (said(conversation), conversation.ignored) == ([("u", "Q")], list(beside))


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Q", "completion": "Bad", "label": False},
        {"prompt": [QUESTION], "completion": [BAD], "label": "False"},
        {"conversations": [QUESTION, BAD], "kto_tag": False},
    ],
)
def test_an_answer_that_is_said_to_be_bad_is_not_learned(record: dict[str, Any]) -> None:
    conversation = read(record)
    assert [turn.is_learned for turn in conversation.turns if turn.role == "assistant"] == [False]
    assert conversation.ignored == []
    good = {
        key: value if key not in ("label", "kto_tag") else True for key, value in record.items()
    }
    assert all(turn.is_learned for turn in read(good).turns)


def test_a_label_that_is_a_class_says_nothing_of_the_answer() -> None:
    conversation = read({"prompt": "Q", "completion": "A", "label": 0})
    assert all(turn.is_learned for turn in conversation.turns)
    assert conversation.ignored == ["label"]


@pytest.mark.parametrize("users", [(0, 1), (True, False), ("0", "1")])
def test_speakers_that_are_numbers_may_be_named(users: tuple[Any, Any]) -> None:
    names = f"role:{users[0]}=user,role:{users[1]}=assistant,field:who=role,field:mes=content"
    messages = [{"who": users[0], "mes": "Q"}, {"who": users[1], "mes": "A"}]
    assert said(read({"messages": messages}, names)) == [("u", "Q"), ("a", "A")]
