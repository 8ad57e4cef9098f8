"""Parts of a message are texts, calls, results of tools or media; whatever else is counted."""

from typing import Any

import orjson
import pytest

from apps.data.read.reader import Reading, read_record
from apps.data.read.record.layout import RawConversation, Turn
from tests.data.read.layouts.one_record import ANSWER, ASKED

CALL = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Linz"}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "Sunny, 20 C"}
SEEN = {"type": "text", "text": "It is sunny."}


def read(*messages: Any, tools: Any = "keep") -> RawConversation:
    return read_record({"messages": list(messages)}, Reading(tools=tools))[0]


def assistant(*parts: Any, **beside: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(parts), **beside}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def said(turns: list[Turn]) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in turns]


def calls(turn: Turn) -> Any:
    return orjson.loads(turn.tool_calls or "[]")


def test_tool_use_is_a_call_and_tool_result_a_turn_of_the_tool() -> None:
    conversation = read(
        ASKED,
        assistant({"type": "text", "text": "Let me look."}, CALL),
        user(RESULT),
        assistant({"type": "thinking", "thinking": "Nice.", "signature": "x"}, SEEN),
    )
    assert said(conversation.turns) == [
        ("user", ASKED["content"]),
        ("assistant", "Let me look."),
        ("tool", "Sunny, 20 C"),
        ("assistant", "It is sunny."),
    ]
    function = {"name": "get_weather", "arguments": {"city": "Linz"}}
    assert calls(conversation.turns[1]) == [{"id": "t1", "type": "function", "function": function}]
    assert conversation.turns[2].tool_call_id == "t1"
    assert conversation.ignored == ["messages[].content[].thinking"]


def test_a_message_that_is_nothing_but_a_call_is_read() -> None:
    turns = read(ASKED, assistant(CALL, {**CALL, "id": "t2"}), user(RESULT), assistant(SEEN)).turns
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "assistant"]
    assert [call["id"] for call in calls(turns[1])] == ["t1", "t2"]


def test_a_message_may_hold_results_and_a_question() -> None:
    ask = {"type": "text", "text": "And tomorrow?"}
    other = {**RESULT, "tool_use_id": "t2", "content": [{"type": "text", "text": "Rain."}]}
    turns = read(ASKED, assistant(CALL), user(RESULT, other, ask), assistant(SEEN)).turns
    assert said(turns)[2:5] == [
        ("tool", "Sunny, 20 C"),
        ("tool", "Rain."),
        ("user", "And tomorrow?"),
    ]


def test_calls_of_the_server_stand_in_one_message_with_their_results() -> None:
    call = {**CALL, "type": "server_tool_use"}
    result = {**RESULT, "type": "web_search_tool_result"}
    turns = read(ASKED, assistant({"type": "text", "text": "Wait."}, call, result, SEEN)).turns
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "assistant"]
    assert said(turns)[-1] == ("assistant", "It is sunny.")


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ({"type": "text", "value": "Sunny."}, "Sunny."),
        ({"type": "json", "value": {"c": 20}}, '{"c": 20}'),
        ({"c": 20}, '{"c": 20}'),
        ([1, 2], "[1, 2]"),
        (20, "20"),
        (None, ""),
    ],
)
def test_the_parts_of_the_ai_sdk_say_the_same(output: Any, text: str) -> None:
    own = {"toolCallId": "t1", "toolName": "get_weather"}
    tool = {"role": "tool", "content": [{"type": "tool-result", **own, "output": output}]}
    conversation = read(
        ASKED, assistant({"type": "tool-call", **own, "args": {"city": "Linz"}}), tool, ANSWER
    )
    turns = conversation.turns
    assert calls(turns[1])[0]["function"]["arguments"] == {"city": "Linz"}
    assert (turns[2].role, turns[2].text, turns[2].name) == ("tool", text, "get_weather")
    assert turns[2].tool_call_id == calls(turns[1])[0]["id"] == "t1"
    assert conversation.ignored == []


def test_without_tools_an_answer_around_them_is_one() -> None:
    looking = assistant({"type": "text", "text": "Let me look."}, CALL, weight=1)
    conversation = read(ASKED, looking, user(RESULT), assistant(SEEN), tools="drop")
    assert said(conversation.turns)[1:] == [("assistant", "Let me look.\n\nIt is sunny.")]
    assert [(left.reason, left.messages) for left in conversation.left_out] == [("tools", 1)]


def test_the_parts_of_an_answer_that_is_not_to_be_learned_are_not() -> None:
    turns = read(ASKED, assistant(CALL, RESULT, SEEN, weight=0)).turns
    assert not any(turn.is_learned for turn in turns if turn.role == "assistant")


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ({"type": "refusal", "refusal": "I cannot."}, "refusal"),
        ({"type": "thinking", "thinking": "Hm."}, "thinking"),
        ({"type": "reasoning", "text": "Hm."}, "reasoning"),
        ({"type": "thinking", "text": "Hm."}, "thinking"),
        ({"type": "redacted_thinking", "data": "x"}, "redacted_thinking"),
        ({"type": "hologram", "size": 3}, "hologram"),
        ({"size": 3}, "size"),
        ({"type": "text", "text": "More.", "citations": [1]}, "citations"),
        ({"type": "tool_use", "name": "", "input": {}}, "tool_use"),
        ({**RESULT, "is_error": True}, "is_error"),
        (7, "part"),
    ],
)
def test_a_part_that_gives_no_text_is_counted(part: Any, name: str) -> None:
    conversation = read(ASKED, assistant(part, SEEN))
    assert conversation.ignored == [f"messages[].content[].{name}"]
    assert conversation.media == []
    assert conversation.turns[-1].text.endswith("It is sunny.")


def test_a_call_of_a_user_is_counted() -> None:
    conversation = read(user(CALL, {"type": "text", "text": "Hi"}), ANSWER)
    assert said(conversation.turns)[0] == ("user", "Hi")
    assert conversation.ignored == ["messages[].content[].tool_use"]


@pytest.mark.parametrize(
    ("part", "text", "media"),
    [
        ({"type": "profile", "text": "I am Bob."}, "I am Bob.", []),
        ({"type": "text", "text": "See.", "image_url": None}, "See.", []),
        ({"text": "See.", "profile": "x"}, "See.", []),
        ({"type": "imageUrl", "imageUrl": "x"}, "", ["imageUrl"]),
        ({"type": "input-file", "file_id": "x"}, "", ["input-file"]),
        ({"type": "documents", "text": "x"}, "", ["documents"]),
        ({"image": "x.png"}, "", ["image"]),
    ],
)
def test_the_kinds_of_media_are_whole_words(part: Any, text: str, media: list[str]) -> None:
    conversation = read(user(part), ANSWER)
    assert (conversation.turns[0].text, conversation.media) == (text, media)


def test_the_tools_of_anthropic_have_the_form_that_templates_know() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    own = {"name": "get_weather", "description": "Of a city.", "input_schema": schema}
    record = {"messages": [ASKED, ANSWER], "tools": [own]}
    made = orjson.loads(read_record(record, Reading())[0].tools or "[]")
    function = {"name": "get_weather", "description": "Of a city.", "parameters": schema}
    assert made == [{"type": "function", "function": function}]
