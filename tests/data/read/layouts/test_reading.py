"""What records say beside plain turns: parts, tools, weights, system columns, flags, odd names."""

import json
import math
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps.common.errors import InputError
from apps.data.read.names import parse_map
from apps.data.read.reader import Reading, read_record
from apps.data.read.record.roles import role_of
from tests.data.commands import rows_of, run_clean
from tests.data.read.layouts.one_record import ANSWER, ASKED, clean_one, said

SHARED = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "<p>Yo</p>"}]
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "c",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"at":"Linz"}'},
        }
    ],
}
RESULT = {"role": "tool", "tool_call_id": "c", "content": '{"c": -3}'}


PLAIN = [("user", ASKED["content"]), ("assistant", ANSWER["content"])]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}], "One.\n\nTwo."),
        (["One.", "Two."], "One.\n\nTwo."),
        ([{"type": "input_text", "text": "One."}], "One."),
        ({"content_type": "text", "parts": ["One."]}, "One."),
        ([{"text": "One."}], "One."),
        ([], ""),
    ],
)
def test_the_text_parts_of_a_message_are_joined(content: Any, text: str, tmp_path: Path) -> None:
    clean_one(tmp_path, {"messages": [{"role": "user", "content": content}, ANSWER]})
    assert said(tmp_path)[0] == ("user", text)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}},
        {"type": "input_audio", "input_audio": {"data": "AA=="}},
        {"type": "image"},
        {"type": "video", "video": "x.mp4"},
    ],
)
def test_a_part_that_is_no_text_drops_the_conversation_or_itself(
    part: dict[str, Any], tmp_path: Path
) -> None:
    shown = {"role": "user", "content": [part, {"type": "text", "text": ASKED["content"]}]}
    record = {"messages": [shown, ANSWER]}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with_rest = {"messages": [ASKED, ANSWER]}
    (tmp_path / "a" / "d.jsonl").write_bytes(orjson.dumps(record) + b"\n" + orjson.dumps(with_rest))
    ledger = run_clean(tmp_path / "a" / "out", tmp_path / "a" / "d.jsonl", profile="none")
    assert ledger["records"]["dropped"] == {"media": 1}
    dropped = clean_one(tmp_path / "b", record, media="drop")
    assert said(tmp_path / "b") == PLAIN
    assert dropped["ignored"] == {f"media.{part['type']}": 1}


@pytest.mark.parametrize(
    "record",
    [
        {
            "image": "a.jpg",
            "messages": [{**ASKED, "content": f"<image>\n{ASKED['content']}"}, ANSWER],
        },
        {
            "videos": ["a.mp4"],
            "messages": [{**ASKED, "content": f"<video>{ASKED['content']}"}, ANSWER],
        },
        {"messages": [{**ASKED, "images": [{"bytes": "AA=="}]}, ANSWER]},
        *(
            {"messages": [{**ASKED, "content": f"{mark}{ASKED['content']}"}, ANSWER]}
            for mark in (
                "Picture 1: <img>my dog.jpg</img>\nPicture 2: <img>a/b.png</img>\n",
                "<img>https://example.org/a.jpeg</img>",
                "Audio 1: <audio>a.flac</audio>\n",
            )
        ),
    ],
)
def test_media_beside_the_text_drop_the_conversation_or_their_marks(
    record: dict[str, Any], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert clean_one(tmp_path / "a", record)["records"]["dropped"] == {"media": 1}
    clean_one(tmp_path / "b", record, media="drop")
    assert said(tmp_path / "b") == PLAIN


@pytest.mark.parametrize(
    "record",
    [
        {"image": "portrait.png", "messages": [ASKED, ANSWER]},
        {"images": [], "messages": [{**ASKED, "content": f"<image> {ASKED['content']}"}, ANSWER]},
        {"messages": [{**ASKED, "images": None, "audio": []}, ANSWER]},
        *(
            {"messages": [{**ASKED, "content": text}, ANSWER]}
            for text in (
                "Why is <img>logo.png</img> no HTML?",
                "<img>\nWhat is this?</img>",
                "```html\n<img>logo.png</img>\n```",
                "<video>It cannot be shown here.</video> is what I see.",
                f"<img>{'a/' * 200_000}\nWhere does </img> go?",
            )
        ),
    ],
)
def test_a_picture_that_no_text_shows_and_a_mark_without_one_change_nothing(
    record: dict[str, Any], tmp_path: Path
) -> None:
    clean_one(tmp_path, record, media="drop")
    assert said(tmp_path)[0][1] == record["messages"][0]["content"]


def test_tools_are_kept_dropped_or_refused(tmp_path: Path) -> None:
    record = {"messages": [ASKED, CALL, RESULT, ANSWER], "tools": [{"type": "function"}]}
    for name in ("keep", "drop", "refuse"):
        (tmp_path / name).mkdir()
    clean_one(tmp_path / "keep", record)
    assert [role for role, _ in said(tmp_path / "keep")] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    ledger = clean_one(tmp_path / "drop", record, tools="drop")
    assert said(tmp_path / "drop") == PLAIN
    assert ledger["messages"]["trimmed"] == {"tools": 2}
    ledger = clean_one(tmp_path / "refuse", record, tools="refuse")
    assert ledger["records"]["dropped"] == {"tools": 1}


def test_what_an_assistant_says_around_a_call_becomes_one_answer(tmp_path: Path) -> None:
    speaking = {**CALL, "content": "Let me look."}
    clean_one(tmp_path, {"messages": [ASKED, speaking, RESULT, ANSWER]}, tools="drop")
    assert said(tmp_path)[1] == ("assistant", "Let me look.\n\n" + ANSWER["content"])


@pytest.mark.parametrize("name", ["tool", "function", "ipython", "observation"])
def test_every_name_of_a_tools_turn_is_known(name: str, tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "What is the weather in Linz?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"at": "Linz"}}'},
        {"from": name, "value": "-3"},
        {"from": "gpt", "value": "Three degrees below zero."},
    ]
    clean_one(tmp_path, {"conversations": turns}, tools="drop")
    assert [role for role, _ in said(tmp_path)] == ["user", "assistant"]


@pytest.mark.parametrize(
    "column", ["system", "system_prompt", "system_message", "system_instruction"]
)
def test_a_system_column_is_the_system_turn(column: str, tmp_path: Path) -> None:
    clean_one(tmp_path, {column: "Be brief.", "messages": [ASKED, ANSWER]})
    assert said(tmp_path) == [("system", "Be brief."), *PLAIN]


def test_a_second_system_text_is_counted(tmp_path: Path) -> None:
    own = {"role": "system", "content": "Be long."}
    ledger = clean_one(tmp_path, {"system_prompt": "Be brief.", "messages": [own, ASKED, ANSWER]})
    assert said(tmp_path)[0] == ("system", "Be long.")
    assert ledger["ignored"] == {"system_prompt": 1}


def test_of_several_lists_the_full_one_is_taken(tmp_path: Path) -> None:
    clean_one(tmp_path, {"conversations": [], "messages": [ASKED, ANSWER], "items": None})
    assert said(tmp_path) == PLAIN


def test_whatever_a_record_says_and_nothing_carries_is_counted(tmp_path: Path) -> None:
    thinking = {**ANSWER, "reasoning_content": "Cold.", "weight": 0.5}
    record = {"messages": [ASKED, thinking], "rating": 5, "tags": ["x"], "empty": "", "no": None}
    ledger = clean_one(tmp_path, record)
    assert ledger["ignored"] == {
        "messages[].reasoning_content": 1,
        "messages[].weight": 1,
        "rating": 1,
        "tags": 1,
    }


@pytest.mark.parametrize(
    "own", [b'"score": NaN, "b": -Infinity', b'"n": 1e999', rb'"title": "\ud83d"', b'"tab": "\t"']
)
@pytest.mark.parametrize("form", [b"%s\n%s", b"[%s,\n%s]"])
def test_a_fault_of_numbers_or_texts_beside_the_messages_costs_its_field(
    own: bytes, form: bytes, tmp_path: Path
) -> None:
    record = b"{" + own + b', "messages": ' + orjson.dumps([ASKED, ANSWER]) + b"}"
    (tmp_path / "dump.json").write_bytes(form % (record, record))
    run_clean(tmp_path / "out", tmp_path / "dump.json", profile="none")
    rows = rows_of(tmp_path / "out")
    assert [[m["content"] for m in row["messages"]] for row in rows] == [
        [ASKED["content"], ANSWER["content"]]
    ] * 2


def test_a_tree_that_pandas_wrote_down_is_read(tmp_path: Path) -> None:
    """Its columns with gaps are floats, and NaN where nothing is."""
    rows = [
        {"message_id": "a", "parent_id": None, "text": "Hi?", "role": "prompter", "rank": math.nan},
        {"message_id": "b", "parent_id": "a", "text": "No.", "role": "assistant", "rank": 0.0},
        {"message_id": "c", "parent_id": "a", "text": "Yes.", "role": "assistant", "rank": 1.0},
    ]
    for row, deleted in zip(rows, (0.0, 1.0, math.nan), strict=True):
        row |= {"message_tree_id": "a", "deleted": deleted, "review_result": math.nan}
    (tmp_path / "dump.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run_clean(tmp_path / "out", tmp_path / "dump.jsonl", profile="none")
    assert said(tmp_path) == [("user", "Hi?"), ("assistant", "Yes.")]


def test_a_record_without_a_message_says_so(tmp_path: Path) -> None:
    record = {"id": "a", "conversations": []}
    ledger = clean_one(tmp_path, record, profile="vicuna")
    assert ledger["records"]["dropped"] == {"no_messages": 1}


@pytest.mark.parametrize("data", [b"", b"[]", b"\n \n", b"{}", b'{"data": []}'])
def test_an_input_without_records_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "dump.json").write_bytes(data)
    with pytest.raises(InputError, match=r"dump\.json"):
        run_clean(tmp_path / "out", tmp_path / "dump.json")


ROLES = {
    "user": ["user", "Human", "prompter", "USER "],
    "assistant": [
        *("AI", "bot", "GPT-4", "gpt4", "gpt-3.5-turbo", "ChatGPT 4", "claude", "Claude-2"),
        *("gemini", "bard", "bing", "chatgpt", "model", "vicuna-13b", "Assistant"),
    ],
    "system": ["system", "developer"],
    "tool": ["tool", "function", "ipython", "observation"],
}


def test_the_names_of_dumps_are_known() -> None:
    for role, names in ROLES.items():
        assert {name: role_of(name, {}) for name in names} == dict.fromkeys(names, role)
    for name in ("alien", "narrator", "", 3, None, "gpttool", "bingo"):
        assert role_of(name, {}) is None


def test_an_unknown_layout_is_one_sentence_that_says_what_was_seen(tmp_path: Path) -> None:
    record = {"instructions": "Do it.", "outputs": "Done.", "n": 3, "meta": {}}
    with pytest.raises(
        InputError,
        match=r"instructions \(text\), outputs \(text\), n \(number\), meta \(object\).*alpaca",
    ):
        clean_one(tmp_path, record)


def test_of_a_folder_the_files_without_conversations_are_left_out_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "data" / "train").mkdir(parents=True)
    (folder / "README.md").write_text("# A set")
    (folder / "data" / "train" / "a.jsonl").write_bytes(orjson.dumps({"messages": [ASKED, ANSWER]}))
    (folder / "data" / "users.json").write_bytes(b'[{"email": "x@example.com"}]')
    (folder / "dataset_info.json").write_bytes(b'{"features": {}}')
    run_clean(tmp_path / "out", folder, profile="none")
    assert said(tmp_path) == PLAIN
    lineage = orjson.loads((tmp_path / "out" / "lineage.json").read_bytes())
    assert {uri.rsplit("/", 1)[1] for uri in lineage["skipped"]} == {
        "README.md",
        "users.json",
        "dataset_info.json",
    }


def test_a_downloaded_data_set_is_read_at_its_main_revision(tmp_path: Path) -> None:
    folder = tmp_path / "datasets--x--y"
    for revision, text in (("aaa", "Old."), ("bbb", "New.")):
        (folder / "snapshots" / revision).mkdir(parents=True)
        record = {"messages": [ASKED, {**ANSWER, "content": text}]}
        (folder / "snapshots" / revision / "d.jsonl").write_bytes(orjson.dumps(record))
    (folder / "blobs").mkdir()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("bbb")
    run_clean(tmp_path / "out", folder, profile="none")
    assert said(tmp_path)[-1] == ("assistant", "New.")


def test_preference_pairs_are_no_conversations_and_the_sentence_shows_why(tmp_path: Path) -> None:
    talk = [ASKED, ANSWER]
    with pytest.raises(InputError, match=r"holds prompt \(text\), chosen \(list\), rejected"):
        clean_one(tmp_path, {"prompt": "Hi", "chosen": talk, "rejected": talk})


def test_an_id_that_is_not_there_is_no_id_of_many(tmp_path: Path) -> None:
    table = pa.table({"id": [math.nan, 7.0], "messages": [[ASKED, ANSWER]] * 2})
    pq.write_table(table, tmp_path / "dump.parquet")
    run_clean(tmp_path / "out", tmp_path / "dump.parquet", profile="none")
    assert [row["source_id"] for row in rows_of(tmp_path / "out")] == ["", "7.0"]


def test_a_line_break_that_is_not_escaped_stays_in_a_tree(tmp_path: Path) -> None:
    (tmp_path / "dump.json").write_text(
        '[{"message_id": "a", "parent_id": null, "role": "prompter", "text": "One\n  two?"},\n'
        ' {"message_id": "b", "parent_id": "a", "role": "assistant", "text": "Three."}]'
    )
    run_clean(tmp_path / "out", tmp_path / "dump.json", profile="none")
    assert said(tmp_path) == [("user", "One\n  two?"), ("assistant", "Three.")]


@pytest.mark.parametrize(
    ("record", "seen"),
    [
        ({"question": "Why?", "answers": ["So.", "No."]}, r"question \(text\), answers \(list\)"),
        ({"tags": [1, 2], "text": "Hi"}, r"tags \(list\), text \(text\)"),
    ],
)
def test_a_list_of_no_records_is_a_field_of_one(record: Any, seen: str, tmp_path: Path) -> None:
    (tmp_path / "dump.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=f"its first record holds {seen}; expected"):
        run_clean(tmp_path / "out", tmp_path / "dump.json", profile="none")


@pytest.mark.parametrize(
    ("record", "layout"),
    [
        ({"Question": "Hi", "Answer": "Yo", "Topic": "x"}, "prompt-completion"),
        ({"INSTRUCTION": "Hi", "INPUT": "", "OUTPUT": "Yo", "Topic": "x"}, "alpaca"),
        ({"ID": "7", "Messages": [ASKED, ANSWER], "Topic": "x"}, "openai"),
        ({"Prompt": "Hi", "Response": "Yo", "response": "Yes", "Topic": "x"}, "prompt-completion"),
    ],
)
def test_columns_may_begin_with_a_capital(record: Any, layout: str) -> None:
    conversation, found = read_record(record, Reading())
    assert found.name == layout and len(conversation.turns) == 2
    assert conversation.ignored == [*(["Response"] if "response" in record else []), "Topic"]


def test_functions_go_with_the_turns_of_tools() -> None:
    tools = [{"type": "function", "function": {"name": "weather"}}]
    record = {"messages": [ASKED, CALL, RESULT, ANSWER], "tools": tools}
    kept, dropped = (read_record(record, Reading(tools=how))[0] for how in ("keep", "drop"))
    assert (kept.tools is not None, kept.ignored) == (True, [])
    assert (dropped.tools, dropped.ignored) == (None, ["tools"])


@pytest.mark.parametrize(
    ("speakers", "roles"),
    [
        (["human", "gpt", "human", "gpt"], ["user", "assistant"] * 2),
        (["system", "USER", "ASSISTANT"], ["system", "user", "assistant"]),
        (["R1", "R2"], ["user", "assistant"]),
    ],
)
@pytest.mark.parametrize("column", ["conversations", "history"])
def test_pairs_of_a_name_and_a_text_are_messages(
    speakers: list[str], roles: list[str], column: str
) -> None:
    said = [[speaker, f"Text {i}"] for i, speaker in enumerate(speakers)]
    names = parse_map("role:R1=user,role:R2=assistant")
    record = {column: said} | ({"prompt": "Q", "completion": "A"} if column == "history" else {})
    turns = read_record(record, Reading(names=names))[0].turns[: len(said)]
    assert [(turn.role, turn.text) for turn in turns] == [
        (role, text) for role, (_, text) in zip(roles, said, strict=True)
    ]


@pytest.mark.parametrize("said", [[["user", "a person"], ["tree", "a plant"]], [["human", "Yes."]]])
def test_questions_that_are_names_of_speakers_are_questions(said: list[list[str]]) -> None:
    turns = read_record({"conversations": said}, Reading())[0].turns
    assert [turn.text for turn in turns] == [text for pair in said for text in pair]


@pytest.mark.parametrize("nothing", [None, "", math.nan])
@pytest.mark.parametrize(
    ("own", "others", "layout"),
    [
        (
            {"prompt": "Hi", "response": "Yo"},
            ("instruction", "input", "output"),
            "prompt-completion",
        ),
        ({"question": "Hi", "answer": "Yo"}, ("prompt", "completion"), "prompt-completion"),
        ({"instruction": "Hi", "output": "Yo"}, ("prompt", "response"), "alpaca"),
        ({"conversations": SHARED}, ("conversation_hash", "consent", "prompt_id"), "sharegpt"),
        ({"messages": [ASKED, ANSWER]}, ("conversation_hash", "consent", "prompt"), "openai"),
    ],
)
def test_empty_columns_of_another_data_set_hide_nothing(
    own: dict[str, Any], others: tuple[str, ...], layout: str, nothing: Any
) -> None:
    record = {**dict.fromkeys(others, nothing), **own}
    conversation, found = read_record(record, Reading())
    assert found.name == layout
    assert conversation.flags == set() and conversation.ignored == []
    assert all(turn.text for turn in conversation.turns) and len(conversation.turns) == 2


@pytest.mark.parametrize(
    ("own", "layout"), [({"role": "user", "content": "Hi"}, "openai"), (SHARED[0], "sharegpt")]
)
def test_empty_fields_of_another_data_set_name_no_layout(own: dict[str, Any], layout: str) -> None:
    union = {"from": None, "value": None, "role": None, "content": None, **own}
    assert read_record({"messages": [union]}, Reading())[1].name == layout
