"""Images and the like beside a text: in a column or field, mostly with a mark in the text.

{"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is this?"}, ...]}
{"messages": [{"role": "user", "content": "What is this?", "images": ["a.jpg"]}, ...]}
"""

import re

from apps.common.json_value import JsonObject
from apps.data.read.record.layout import RawConversation, is_set

_FIELDS = ("image", "images", "audio", "audios", "video", "videos")
_FILES = ("attachments", "files", "experimental_attachments")
"""Of a message: what it speaks of, and does not say."""
_MARK = re.compile(r"<(image|audio|video)>[ \t]*\n?")


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


def without_marks(conversation: RawConversation) -> None:
    """Leave out of the texts the marks of what was left out."""
    if any(name in _FIELDS for name in conversation.media):
        for turn in conversation.turns:
            turn.text = _MARK.sub("", turn.text)
