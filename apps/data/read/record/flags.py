"""What a record or a message says of itself: toxic, redacted, flagged by moderation."""

from apps.common.json_value import JsonObject
from apps.data.read.record.layout import list_of, object_of
from apps.data.read.record.parse import parse_cell

MODERATION = ("openai_moderation", "moderation", "moderation_results")
FLAGS = {
    **dict.fromkeys(("toxic", "is_toxic"), "toxic"),
    **dict.fromkeys(("redacted", "is_redacted"), "redacted"),
    **dict.fromkeys(("flagged", "is_flagged", "nsfw", "is_nsfw"), "moderation"),
}
"""Names of such fields, and the flag that each is."""
_WORDS = {
    **dict.fromkeys(("true", "yes", "t", "y"), True),
    **dict.fromkeys(("false", "no", "f", "n"), False),
}


def flags_of(said: JsonObject) -> set[str]:
    """Which flags a record or a message has."""
    flags = {flag for key, flag in FLAGS.items() if key in said and yes_or_no(said[key])}
    if any(key in said and _is_flagged(said[key]) for key in MODERATION):
        flags.add("moderation")
    return flags


def yes_or_no(value: object) -> bool | None:
    """Tables of pandas have numbers and texts where others have true and false; None: neither, as
    of the empty cells and NaN where nothing is said."""
    text = str(value).strip().lower()
    if text in _WORDS:
        return _WORDS[text]
    try:
        return {0.0: False, 1.0: True}.get(float(text))
    except ValueError:
        return None


def _is_flagged(value: object) -> bool:
    """A verdict of moderation, of the whole or of each turn.

    {"flagged": true}    {"results": [{"flagged": true}]}    {"categories": {"hate": true}}
    """
    if isinstance(value, str):
        value = parse_cell(value)
    one = object_of(value)
    if one is None:
        return any(_is_flagged(item) for item in list_of(value) or ())
    if "flagged" in one:
        return yes_or_no(one["flagged"]) is True
    categories = object_of(one.get("categories")) or {}
    return any(map(yes_or_no, categories.values())) or _is_flagged(one.get("results"))
