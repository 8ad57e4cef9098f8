"""What a message says: a text, or a list of parts of which some are no text."""

from apps.common.json_value import JsonObject
from apps.data.read.record.layout import list_of, object_of

_TEXT_KEYS = ("text", "content", "value")
_TEXT_KINDS = frozenset(
    ("text", "input_text", "output_text", "markdown", "paragraph", "multimodal_text")
)
_MEDIA = ("image", "audio", "video", "file", "media", "document", "asset_pointer")


def text_of_content(content: object, media: list[str]) -> str | None:
    """The text parts joined; None when it is neither a text nor parts.

    Kinds of the parts that are no text are added to `media`.

        [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": ...}]
        ->  "What is this?", and "image_url" to media
    """
    if isinstance(content, str):
        return content
    parts = list_of(content)
    if parts is None:
        part = object_of(content)
        if part is None:
            return None
        inner = list_of(part.get("parts"))
        parts = [part] if inner is None else inner
    texts = [text for part in parts if (text := _text_of_part(part, media)) is not None]
    if not texts and not media:
        return "" if not parts else None
    return "\n\n".join(text for text in texts if text)


def _text_of_part(part: object, media: list[str]) -> str | None:
    if isinstance(part, str):
        return part
    given = object_of(part)
    if given is None:
        return None
    kind = str(given.get("type") or given.get("content_type") or "")
    if kind in _TEXT_KINDS or not kind:
        text = _first_text(given)
        if text is not None or kind in _TEXT_KINDS:
            return text
    if _is_media(given, kind):
        media.append(kind or next(key for key in given if _names_media(key)))
        return None
    return _first_text(given)


def _first_text(part: JsonObject) -> str | None:
    return next((said for key in _TEXT_KEYS if isinstance(said := part.get(key), str)), None)


def _is_media(part: JsonObject, kind: str) -> bool:
    return _names_media(kind) or any(map(_names_media, part))


def _names_media(name: str) -> bool:
    return any(word in name for word in _MEDIA)
