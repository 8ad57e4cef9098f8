"""Images and the like beside a text: in a column or field, mostly with a mark in the text.

{"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is this?"}, ...]}
{"messages": [{"role": "user", "content": "What is this?", "images": ["a.jpg"]}, ...]}

Qwen-VL and Qwen-Audio have the file in the mark, and no column:

{"from": "user", "value": "Picture 1: <img>a.jpg</img>\\nWhat is this?"}

https://github.com/QwenLM/Qwen-VL/blob/master/README.md#finetuning has that form.
"""

import re
from collections.abc import Sequence

from apps.common.json_value import JsonObject
from apps.data.read.record.layout import RawConversation, Turn, is_set

_FIELDS = ("image", "images", "audio", "audios", "video", "videos")
_FILES = ("attachments", "files", "experimental_attachments")
"""Of a message: what it speaks of, and does not say."""
_MARK = re.compile(r"<(image|audio|video)>[ \t]*\n?")
_FILE_MARK = re.compile(
    r"(?:^(?:Picture|Audio|Video) \d+:[ \t]*<(img|audio|video)>[^<>\n]+"
    r"|\A<(img|audio|video)>(?=[^<>\s]*[./])[^<>\s]+)</(?:\1|\2)>[ \t]*\n?",
    re.MULTILINE,
)
"""With its number, or at the head of a text; elsewhere it is code that is asked about."""


def media_of_message(message: JsonObject) -> list[str]:
    """Fields of a message that hold what is no text."""
    return [key for key in (*_FIELDS, *_FILES) if is_set(message.get(key))]


def media_of_record(record: JsonObject, conversation: RawConversation) -> list[str]:
    """Columns that hold what a mark in the text stands for; others may be a picture of anything."""
    columns = [key for key in _FIELDS if is_set(record.get(key))]
    if not columns:
        return []
    marks = {mark for turn in conversation.turns for mark in _MARK.findall(turn.text)}
    return [key for key in columns if key.removesuffix("s") in marks]


def media_in_marks(turns: Sequence[Turn]) -> list[str]:
    """The tags of the marks in what users say that have a file in them."""
    return [
        mark[1] or mark[2]
        for turn in turns
        if turn.role == "user" and "</" in turn.text
        for mark in _FILE_MARK.finditer(turn.text)
    ]


def without_marks(conversation: RawConversation) -> None:
    """Leave out of the texts the marks of what was left out."""
    has_marks = any(name in _FIELDS for name in conversation.media)
    for turn in conversation.turns:
        if media_in_marks([turn]):
            turn.text = _FILE_MARK.sub("", turn.text)
        if has_marks:
            turn.text = _MARK.sub("", turn.text)
