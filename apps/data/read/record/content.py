"""What a message says: a text, or a list of parts of which some are no text."""

import re

from apps.common.json_value import JsonObject, JsonValue
from apps.data.read.record.layout import RawConversation, is_set, list_of, object_of

_TEXT_KEYS = ("text", "content", "value")
_TEXT_KINDS = frozenset(
    (
        *("text", "input_text", "output_text", "markdown", "paragraph", "multimodal_text"),
        "audio_transcription",
    )
)
_SPOKEN = ("audio_transcription",)
"""What stands beside the sound that it says in words."""
_KINDS = ("type", "content_type")
_THOUGHTS = frozenset(("thinking", "redacted_thinking", "reasoning", "thought", "thoughts"))
"""What a model said to itself; a format may have it as text."""
_MEDIA = frozenset(("image", "audio", "video", "file", "media", "document", "asset"))
_WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+")


def parts_of(content: object) -> list[JsonValue] | None:
    """The parts of what is no text; None when it has none."""
    part = object_of(content)
    if part is None:
        return list_of(content)
    inner = list_of(part.get("parts"))
    return [part] if inner is None else inner


def kind_of(part: object) -> str:
    """Its own name of what it is; "" for none."""
    given = object_of(part) or {}
    return next((kind for key in _KINDS if isinstance(kind := given.get(key), str) and kind), "")


def text_of_content(content: object, conversation: RawConversation) -> str | None:
    """The text parts joined; None when it is neither a text nor parts, or no part says anything.

    Kinds of the parts that are media are added to the conversation's `media`; what else is no text
    is named among its `ignored`.

        [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": ...}]
        ->  "What is this?", and "image_url" to media
    """
    if isinstance(content, str):
        return content
    parts = parts_of(content)
    if parts is None:
        return None
    _count_beside_parts(content, conversation)
    num_media = len(conversation.media)
    is_spoken = any(kind_of(part) in _SPOKEN for part in parts)
    given = (one for one in parts if not (is_spoken and _is_sound(one, conversation)))
    texts = [text for part in given if (text := _text_of_part(part, conversation)) is not None]
    if not texts and len(conversation.media) == num_media:
        return "" if not parts else None
    return "\n\n".join(text for text in texts if text)


def _count_beside_parts(content: object, conversation: RawConversation) -> None:
    """What an object says beside its `parts`."""
    whole = object_of(content) or {}
    if list_of(whole.get("parts")) is not None:
        ignore_rest(whole, (*_KINDS, "parts"), conversation)


def _text_of_part(part: object, conversation: RawConversation) -> str | None:
    if isinstance(part, str):
        return part
    given = object_of(part)
    if given is None:
        if is_set(part):
            ignore_part("part", conversation)
        return None
    kind = kind_of(given)
    if kind in _THOUGHTS:
        ignore_part(kind, conversation)
        return None
    key = next((key for key in _TEXT_KEYS if isinstance(given.get(key), str)), None)
    if kind not in _TEXT_KINDS and (kind or key is None) and (media := _media_in(given, kind)):
        conversation.media.append(media)
        return None
    if key is None:
        ignore_part(kind or next((key for key in given if is_set(given[key])), ""), conversation)
        return None
    ignore_rest(given, (*_KINDS, key), conversation)
    text = given[key]
    assert isinstance(text, str)  # the key of one
    return text


def _is_sound(part: object, conversation: RawConversation) -> bool:
    """Whether a part is nothing but sound; it is counted."""
    given = object_of(part)
    kind = "" if given is None else kind_of(given)
    if given is None or kind in _SPOKEN or "audio" not in kind:
        return False
    if any("video" in key and is_set(value) for key, value in given.items()):
        return False
    ignore_part(kind, conversation)
    return True


def ignore_part(name: str, conversation: RawConversation) -> None:
    """Count a part without text by its kind, or a field of a part."""
    if name:
        conversation.ignored.append(f"messages[].content[].{name}")


def ignore_rest(part: JsonObject, keys: tuple[str, ...], conversation: RawConversation) -> None:
    """Count the fields of a part that say something, and that are not among those that are read."""
    for key, value in part.items():
        if key not in keys and is_set(value):
            ignore_part(key, conversation)


def _media_in(part: JsonObject, kind: str) -> str | None:
    """The kind, or the field that holds what is no text."""
    if _names_media(kind):
        return kind
    field = next((key for key in part if is_set(part[key]) and _names_media(key)), None)
    return kind or field if field else None


def _names_media(name: str) -> bool:
    """Whether one of its words does: `image_url` and `inputAudio`, but no `profile`."""
    return any(word.lower().removesuffix("s") in _MEDIA for word in _WORD.findall(name))
