"""What the exports of ChatGPT and Claude say: branches, spoken words, marks of sources."""

from typing import Any

import pytest

from apps.data.read.layouts.chatgpt_citations import without_citations
from apps.data.read.layouts.known import recognised
from apps.data.read.reader import Reading, read_record, refusal
from apps.data.read.record.layout import RawConversation
from apps.data.read.record.parse import parse


def claude(*messages: tuple[str, str, str, str], **beside: Any) -> RawConversation:
    given = [
        {"uuid": key, "parent_message_uuid": parent, "sender": sender, "text": text}
        for key, parent, sender, text in messages
    ]
    return read_record({"uuid": "u", "chat_messages": given, **beside}, Reading())[0]


def texts(conversation: RawConversation) -> list[str]:
    return [turn.text for turn in conversation.turns]


EDITED = (
    ("1", "0", "human", "Q first"),
    ("2", "1", "assistant", "A first"),
    ("3", "0", "human", "Q edited"),
    ("4", "3", "assistant", "A edited"),
)


def test_of_an_edited_question_the_last_branch_is_the_conversation() -> None:
    conversation = claude(*EDITED)
    assert texts(conversation) == ["Q edited", "A edited"]
    assert [(left.reason, left.messages, left.bytes) for left in conversation.left_out] == [
        ("other_branch", 2, len("Q firstA first"))
    ]
    assert conversation.ignored == []


def test_of_an_answer_made_anew_the_last_one_is_taken() -> None:
    again = ("3", "1", "assistant", "A second")
    assert texts(claude(*EDITED[:2], again)) == ["Q first", "A second"]
    more = ("4", "2", "human", "Thanks")
    assert texts(claude(*EDITED[:2], again, more)) == ["Q first", "A first", "Thanks"]


def test_the_leaf_that_an_export_names_is_the_last() -> None:
    conversation = claude(*EDITED, current_leaf_message_uuid="2")
    assert texts(conversation) == ["Q first", "A first"]
    assert conversation.ignored == []


@pytest.mark.parametrize("parents", ["0123", "0000", ["", "", "", ""]])
def test_what_stands_behind_the_named_leaf_of_a_list_is_another_branch(parents: Any) -> None:
    senders = ("human", "assistant", "human", "assistant")
    messages = list(zip("1234", parents, senders, "abcd", strict=True))
    conversation = claude(*messages, current_leaf_message_uuid="2")
    assert texts(conversation) == ["a", "b"]
    assert [(left.reason, left.messages) for left in conversation.left_out] == [("other_branch", 2)]
    assert texts(claude(*messages, current_leaf_message_uuid="9")) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("keys", "parents"),
    [("1234", "0000"), ("1234", ["", "", "", ""]), ("1234", "4123"), (["", "", "", ""], "0123")],
)
def test_messages_that_make_no_tree_stand_in_their_order(keys: Any, parents: Any) -> None:
    senders = ("human", "assistant", "human", "assistant")
    messages = list(zip(keys, parents, senders, "abcd", strict=True))
    assert texts(claude(*messages)) == ["a", "b", "c", "d"]


def test_a_circle_of_messages_before_the_last_ends() -> None:
    circle = (("1", "2", "human", "a"), ("2", "1", "assistant", "b"), ("3", "2", "human", "c"))
    assert texts(claude(*circle)) == ["a", "b", "c"]


def test_what_a_message_of_claude_says_beside_is_counted() -> None:
    message = {"sender": "human", "text": "Hi", "feedback": "good", "attachments": []}
    conversation = read_record({"chat_messages": [message]}, Reading())[0]
    assert conversation.ignored == ["messages[].feedback"]


def chatgpt(*messages: tuple[str, dict[str, Any]]) -> RawConversation:
    mapping: dict[str, Any] = {}
    for i, (role, content) in enumerate(messages):
        message = {"author": {"role": role}, "content": content, "metadata": {}}
        mapping[str(i)] = {"parent": str(i - 1) if i else None, "message": message, "children": []}
    record = {"mapping": mapping, "current_node": str(len(messages) - 1), "conversation_id": "c"}
    return read_record(record, Reading())[0]


def spoken(text: str, *sounds: dict[str, Any]) -> dict[str, Any]:
    words = {"content_type": "audio_transcription", "text": text, "decoding_id": None}
    return {"content_type": "multimodal_text", "parts": [words, *sounds]}


SOUND = {"content_type": "audio_asset_pointer", "asset_pointer": "y"}
BOTH = {
    "content_type": "real_time_user_audio_video_asset_pointer",
    "audio_asset_pointer": SOUND,
    "video_container_asset_pointer": None,
}


def test_what_was_spoken_is_text_and_its_sound_is_counted() -> None:
    conversation = chatgpt(
        ("user", spoken("How tall is Everest?", BOTH)), ("assistant", spoken("8,849 m.", SOUND))
    )
    assert texts(conversation) == ["How tall is Everest?", "8,849 m."]
    assert conversation.media == []
    assert refusal(conversation, Reading()) is None
    assert conversation.ignored == [
        "messages[].content[].real_time_user_audio_video_asset_pointer",
        "messages[].content[].audio_asset_pointer",
    ]


@pytest.mark.parametrize(
    "part",
    [
        {**BOTH, "video_container_asset_pointer": {"asset_pointer": "z"}},
        {"content_type": "image_asset_pointer", "asset_pointer": "z"},
    ],
)
def test_what_was_shown_beside_spoken_words_is_no_text(part: dict[str, Any]) -> None:
    conversation = chatgpt(("user", spoken("What is this?", part)), ("assistant", spoken("A cat.")))
    assert conversation.media == [part["content_type"]]
    assert texts(conversation) == ["What is this?", "A cat."]


def attaching(**lists: list[dict[str, str]]) -> RawConversation:
    asked = {"sender": "human", "text": "Sum it up.", "content": [], **lists}
    record: Any = {"chat_messages": [asked, {"sender": "assistant", "text": "It rains."}]}
    return read_record(record, Reading())[0]


PASTE = {"file_name": "paste.txt", "file_type": "txt", "extracted_content": "Rain, all day."}


@pytest.mark.parametrize(
    ("lists", "text", "media"),
    [
        ({"attachments": [PASTE]}, "Sum it up.\n\nRain, all day.", []),
        ({"attachments": [PASTE], "files": [{"file_name": "paste.txt"}]}, None, []),
        ({"attachments": [PASTE], "files": [{"file_name": "a.png"}]}, None, ["files"]),
        ({"attachments": [{**PASTE, "extracted_content": ""}]}, "Sum it up.", ["attachments"]),
        ({"attachments": [], "files": []}, "Sum it up.", []),
    ],
)
def test_the_text_of_what_claude_was_given_is_read(
    lists: dict[str, Any], text: str | None, media: list[str]
) -> None:
    conversation = attaching(**lists)
    assert texts(conversation)[0] == (text or "Sum it up.\n\nRain, all day.")
    assert conversation.media == media


def test_sound_without_its_words_is_no_text() -> None:
    content = {"content_type": "multimodal_text", "parts": [SOUND]}
    assert chatgpt(("user", content), ("assistant", spoken("Yes."))).media == [
        "audio_asset_pointer"
    ]


def test_what_chatgpt_knows_of_its_user_is_counted() -> None:
    context = {"content_type": "user_editable_context", "user_profile": "Bob"}
    plain = {"content_type": "text", "parts": ["Hi"]}
    conversation = chatgpt(("user", context), ("user", plain), ("assistant", plain))
    assert texts(conversation) == ["Hi", "Hi"]
    assert conversation.ignored == ["messages[].content[].user_editable_context"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("It is 8 m \ue200cite\ue202turn0search1\ue202turn0search3\ue201.", "It is 8 m."),
        ("It is 8 m\ue200cite\ue202turn0search1\ue201\nNext.", "It is 8 m\nNext."),
        ("See \ue200url\ue202The peak\ue202turn0search1\ue201 now.", "See The peak now."),
        ('In \ue200entity\ue202["place","Linz","Austria"]\ue201.', "In Linz."),
        ("In \ue200entity\ue202broken\ue201.", "In."),
        ("News \ue200navlist\ue202Linz\ue202turn0news1\ue201", "News"),
        ("It is 8 m\u30104\u2020source\u3011\u30104:0\u2020a.pdf\u3011.", "It is 8 m."),
        ("An open \ue200cite\ue202turn0", "An open \ue200cite\ue202turn0"),
        ("\u3010Title\u3011 stays.", "\u3010Title\u3011 stays."),
    ],
)
def test_marks_of_sources_are_no_part_of_an_answer(text: str, shown: str) -> None:
    assert without_citations(text) == shown
    content = {"content_type": "text", "parts": [text]}
    conversation = chatgpt(("user", content), ("assistant", content))
    assert texts(conversation) == [text, shown]
    assert conversation.ignored == []
    assert conversation.repaired == ({"citations": 1} if shown != text else {})


def test_what_a_message_of_chatgpt_says_beside_its_text_is_counted() -> None:
    content = '{"content_type": "text", "parts": ["Lost?"], "parts": ["Hi"], "note": "x"}'
    message = f'{{"author": {{"role": "user"}}, "content": {content}, "mood": "glad"}}'
    node = f'{{"id": "a", "parent": null, "children": [], "message": {message}, "star": true}}'
    record = parse(f'{{"mapping": {{"a": {node}}}, "current_node": "a"}}')
    conversation = read_record(record, Reading())[0]
    assert texts(conversation) == ["Hi"]
    beside = ["content[].parts (2)", "content[].note", "star", "mood"]
    assert conversation.ignored == [f"messages[].{field}" for field in beside]


def test_a_file_that_a_question_speaks_of_is_no_text() -> None:
    content = {"content_type": "text", "parts": ["Sum it up."]}
    message = {
        "author": {"role": "user"},
        "content": content,
        "metadata": {"attachments": [{"name": "a.pdf"}]},
    }
    record = {"mapping": {"a": {"message": message, "parent": None}}, "current_node": "a"}
    conversation = read_record(record, Reading())[0]
    assert (texts(conversation), conversation.media) == (["Sum it up."], ["attachments"])


def test_a_tree_whose_messages_have_no_author_is_of_another_program() -> None:
    """As DeepSeek's export has it."""
    nodes: dict[str, Any] = {"root": {"message": None, "parent": None, "children": ["1"]}}
    said = {"fragments": [{"type": "REQUEST", "content": "Hi"}]}
    nodes["1"] = {"message": said, "parent": "root", "children": []}
    assert recognised({"title": "T", "mapping": nodes}) is None
    nodes["1"]["message"] = {"author": {"role": "user"}, "content": {"parts": ["Hi"]}}
    assert recognised({"title": "T", "mapping": nodes}) is not None
    del nodes["1"]
    assert recognised({"title": "T", "mapping": nodes}) is not None
