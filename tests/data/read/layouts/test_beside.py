"""What stands beside a question, an answer or a message is read, or it is counted by its name."""

import math
from pathlib import Path
from typing import Any

import orjson
import pytest

from apps.data.read.layouts.known import recognised
from apps.data.read.reader import Reading, read_record
from apps.data.read.record.layout import RawConversation
from tests.data.read.layouts.one_record import ANSWER, ASKED, clean_one


def read(record: Any) -> RawConversation:
    return read_record(record, Reading())[0]


def said(record: Any) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in read(record).turns]


def test_the_pairs_of_xtuner_say_their_system_text_and_what_is_learned() -> None:
    first = {"system": "You are a pirate.", "input": "Who?", "output": "Arr."}
    pairs = [
        {**first, "output_with_loss": False, "source": "sea"},
        {"input": "And?", "output": "Yo.", "system": "You are a pirate."},
        {"input": "Now?", "output": "No.", "system": "You are a cook.", "trainable": True},
    ]
    conversation = read({"conversation": pairs})
    assert [(turn.role, turn.text) for turn in conversation.turns] == [
        ("system", "You are a pirate."),
        ("user", "Who?"),
        ("assistant", "Arr."),
        ("user", "And?"),
        ("assistant", "Yo."),
        ("system", "You are a cook."),
        ("user", "Now?"),
        ("assistant", "No."),
    ]
    learned = [turn.is_learned for turn in conversation.turns if turn.role == "assistant"]
    assert learned == [False, True, True]
    assert conversation.ignored == ["pairs[].source"]


@pytest.mark.parametrize(
    ("beside", "shown"),
    [
        ("dog", "Do it.\n\ndog"),
        (7, "Do it.\n\n7"),
        (0.5, "Do it.\n\n0.5"),
        ([1, 2, 3], "Do it.\n\n[1, 2, 3]"),
        ({"größe": "m"}, 'Do it.\n\n{"größe": "m"}'),
        ("", "Do it."),
        (None, "Do it."),
        (math.nan, "Do it."),
        ("it", "Do it.\n\nit"),
    ],
)
@pytest.mark.parametrize(
    ("asked", "name", "answer"),
    [
        ("instruction", "input", "output"),
        ("instruction", "input", "response"),
        ("instruction", "context", "response"),
        ("instruction", "context", "output"),
        ("question", "context", "answer"),
        ("prompt", "input", "completion"),
        ("query", "context", "response"),
    ],
)
def test_what_a_question_speaks_of_stands_below_it(
    beside: Any, shown: str, asked: str, name: str, answer: str
) -> None:
    record = {asked: "Do it.", name: beside, answer: "Done."}
    conversation = read(record)
    assert [turn.text for turn in conversation.turns] == [shown, "Done."]
    assert conversation.ignored == []


LONG = "The quick brown fox jumps over the lazy dog."


@pytest.mark.parametrize(
    ("asked", "beside", "is_quoted"),
    [
        ("Translate: Hello", "Hello", True),
        ("Translate\nHello\nto German.", "Hello", True),
        (f"Translate '{LONG}' to German.", LONG, True),
        ("Classify the letter.", "a", False),
        ("Spell banana", "a", False),
        ("Say Hello to her.", "Hello", False),
    ],
)
def test_a_prompt_that_quotes_what_stands_beside_it_says_it_once(
    asked: str, beside: str, is_quoted: bool
) -> None:
    shown = asked if is_quoted else f"{asked}\n\n{beside}"
    assert said({"prompt": asked, "input": beside, "output": "x"})[0] == ("user", shown)
    told = ("user", f"{asked}\n\n{beside}")
    assert said({"instruction": asked, "input": beside, "output": "x"})[0] == told


@pytest.mark.parametrize("asked", ["input", "instruction", "prompt"])
def test_the_bytes_of_a_question_are_counted_once(asked: str, tmp_path: Path) -> None:
    record = {asked: "What floats on water? " * 9, "output": "Cork."}
    ledger = clean_one(tmp_path, record)
    texts = sum(map(len, record.values()))
    assert ledger["bytes"]["kept"] == texts
    assert ledger["bytes"]["framing"] == len(orjson.dumps(record)) + len("\n") - texts


def test_an_id_that_is_no_text_is_counted() -> None:
    record = {"id": {"$oid": "5f"}, "messages": [ASKED, ANSWER]}
    assert read(record).ignored == ["id"]
    assert read({**record, "id": 5}).ignored == []


def test_what_is_no_text_beside_a_question_is_counted() -> None:
    assert read({"instruction": "Do it.", "input": True, "output": "Done."}).ignored == ["input"]


def test_an_answer_may_be_a_number() -> None:
    assert said({"question": "Six by seven?", "answer": 42})[1] == ("assistant", "42")
    assert said({"instruction": "Six by seven?", "output": 4.5})[1] == ("assistant", "4.5")
    assert said({"conversation": [{"input": "1 + 1?", "output": 2}]})[1] == ("assistant", "2")
    assert recognised({"question": "Is it so?", "answer": True}) is None


@pytest.mark.parametrize(
    "history",
    [
        [["Where?", "Right."]],
        '[["Where?", "Right."]]',
        "[['Where?', 'Right.']]",
        [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Right."}],
        '[{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Right."}]',
    ],
)
def test_a_history_is_read_however_it_is_written(history: Any) -> None:
    record = {"instruction": "And then?", "input": "", "output": "Left.", "history": history}
    assert said(record) == [
        ("user", "Where?"),
        ("assistant", "Right."),
        ("user", "And then?"),
        ("assistant", "Left."),
    ]


def test_lists_that_a_cell_holds_as_text_are_read() -> None:
    pairs = '[["Where?", "Right."]]'
    assert said({"conversation": pairs}) == [("user", "Where?"), ("assistant", "Right.")]
    asked, answer = (orjson.dumps([one]).decode() for one in (ASKED, ANSWER))
    expected = [("user", ASKED["content"]), ("assistant", ANSWER["content"])]
    assert said({"prompt": asked, "completion": answer}) == expected


def test_a_history_that_is_none_is_counted() -> None:
    record = {"instruction": "And then?", "output": "Left.", "history": "we talked"}
    assert read(record).ignored == ["history"]


@pytest.mark.parametrize(
    "system",
    [
        "You are a pirate.",
        [{"type": "text", "text": "You are a pirate."}],
        {"type": "text", "text": "You are a pirate."},
        '[{"type": "text", "text": "You are a pirate."}]',
        ["You are a pirate."],
    ],
)
def test_a_system_text_is_read_however_it_is_written(system: Any) -> None:
    conversation = read({"system": system, "messages": [ASKED, ANSWER]})
    assert conversation.turns[0].text == "You are a pirate."
    assert conversation.ignored == []


def test_columns_that_could_not_be_read_are_counted() -> None:
    beside = {"system": 5, "model": {"name": "x"}, "tools": "none", "system_prompt": "Be brief."}
    more = {"system_message": "Be long.", "id": "a", "uuid": "b", "functions": [{"name": "f"}]}
    conversation = read({**beside, **more, "messages": [ASKED, ANSWER]})
    assert conversation.turns[0].text == "Be brief."
    assert sorted(conversation.ignored) == ["model", "system", "system_message", "tools", "uuid"]


@pytest.mark.parametrize(
    "own",
    [
        *({key: False} for key in ("trainable", "train", "training", "loss", "output_with_loss")),
        *({"weight": value} for value in (0, 0.0, "0", "0.0")),
        {"loss_weight": 0},
        {"weight": None, "trainable": "false"},
    ],
)
def test_an_answer_that_is_not_to_be_learned_is_not(own: dict[str, Any]) -> None:
    conversation = read({"messages": [ASKED, {**ANSWER, **own}]})
    assert [turn.is_learned for turn in conversation.turns] == [True, False]
    assert conversation.ignored == []


def test_calls_that_are_not_to_be_learned_are_not() -> None:
    call = {"from": "function_call", "value": '{"name": "f"}', "weight": 0}
    asked, answer = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}
    turns = read({"conversations": [asked, call, answer]}).turns
    assert [turn.is_learned for turn in turns] == [True, False, True]


WRITTEN = '<tool_call>\n{"name": "f", "arguments": {"x": null}}\n</tool_call>'
PRINTED = "<tool_call>{'arguments': {'x': None}, 'name': 'f'}</tool_call>"


@pytest.mark.parametrize("written", [WRITTEN, PRINTED, f"{WRITTEN}\n{WRITTEN}\n"])
@pytest.mark.parametrize("before", ["", "I look it up.\n"])
def test_a_call_that_is_written_out_is_one(written: str, before: str) -> None:
    texts = (("human", "Who?"), ("gpt", before + written), ("tool", "Bob"), ("gpt", "It is Bob."))
    record = {"conversations": [{"from": name, "value": text} for name, text in texts]}
    turns = read(record).turns
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": None}}}
    assert orjson.loads(turns[1].tool_calls or "") == [call] * written.count("</tool_call>")
    assert turns[1].text == before.strip()
    kept = read_record(record, Reading(tools="drop"))[0].turns
    assert kept[1].text == f"{before}\nIt is Bob.".strip()


@pytest.mark.parametrize(
    "text",
    [
        f"Write this:\n```\n{WRITTEN}\n```",
        f"So it ends: {WRITTEN}",
        "<tool_call>\n{no json}\n</tool_call>",
        '<tool_call>{"arguments": {}}</tool_call>',
        f"{WRITTEN} is how it is written.",
    ],
)
def test_a_call_that_is_talked_of_stays_text(text: str) -> None:
    assert said({"messages": [ASKED, {"role": "assistant", "content": text}]})[1][1] == text


CALLS = [{"function": {"name": "f", "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ({**ANSWER, "edited": False}, "edited"),
        ({**ANSWER, "weight": 0.5}, "weight"),
        ({**ANSWER, "text": "Another answer."}, "text"),
        ({**ANSWER, "author": "Bob"}, "author"),
        ({**ANSWER, "name": "Bob"}, "name"),
        ({**ANSWER, "tool_calls": [{"name": ""}]}, "tool_calls"),
        ({**ANSWER, "tool_call_id": "c"}, "tool_call_id"),
        ({**ASKED, "tool_calls": CALLS}, "tool_calls"),
        ({**ANSWER, "tool_calls": CALLS, "function_call": {"name": "g"}}, "function_call"),
    ],
)
def test_what_a_message_says_and_its_turn_does_not_is_counted(
    message: dict[str, Any], name: str
) -> None:
    assert read({"messages": [ASKED, message]}).ignored == [f"messages[].{name}"]


def test_what_a_message_says_twice_is_not_counted() -> None:
    both = {"from": "gpt", "role": "assistant", "value": "Hi.", "content": "Hi.", "text": None}
    assert read({"messages": [ASKED, both]}).ignored == []


def test_of_several_texts_the_full_one_is_taken() -> None:
    message = {"role": "assistant", "content": "", "text": "Hello to you."}
    assert said({"messages": [ASKED, message]})[1] == ("assistant", "Hello to you.")


def test_nulls_that_a_table_put_into_a_call_are_none_of_its_arguments() -> None:
    given = {"city": "Linz", "zone": None, "at": {"day": 1, "hour": None}}
    asked = {"role": "assistant", "content": None, "tool_calls": None}
    for arguments, kept in (
        (given, {"city": "Linz", "at": {"day": 1}}),
        (orjson.dumps(given).decode(), given),
        (None, {}),
    ):
        calls = [{"function": {"name": "f", "arguments": arguments}}]
        turn = read({"messages": [ASKED, {**asked, "tool_calls": calls}]}).turns[1]
        assert orjson.loads(turn.tool_calls or "")[0]["function"]["arguments"] == kept


def test_nulls_that_a_table_put_into_a_function_are_no_part_of_it() -> None:
    city = {"type": "string", "enum": None, "default": None}
    schema = {"type": "object", "properties": {"city": city, "zone": None}}
    given = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    own = {"type": "object", "properties": {"city": {"type": "string", "default": None}}}
    for tools, kept in ((given, own), (orjson.dumps(given).decode(), schema)):
        made = orjson.loads(read({"messages": [ASKED, ANSWER], "tools": tools}).tools or "")
        assert made[0]["function"]["parameters"] == kept


def test_the_bytes_of_numbers_and_lists_are_framing(tmp_path: Path) -> None:
    record = {"instruction": "Sum it.", "input": [1e9] * 500, "output": 5e11}
    ledger = clean_one(tmp_path, record)
    assert ledger["bytes"]["framing"] > 0
    assert ledger["records"]["kept"] == 1


@pytest.mark.parametrize("form", ["alpaca", "pairs"])
def test_a_question_without_an_instruction_is_what_is_beside_it(form: str) -> None:
    fields = {"instruction": "", "input": "Which river?", "output": "The Danube."}
    record = fields if form == "alpaca" else {"conversation": [fields]}
    assert said(record) == [("user", "Which river?"), ("assistant", "The Danube.")]
