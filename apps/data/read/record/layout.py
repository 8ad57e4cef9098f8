"""What every layout is: recognises a record, and reads it as one conversation.

A layout is a way to write a conversation down as one JSON object. Its file says which fields make
it one, and reads turns, ids and flags; whatever else the record holds is named, never lost unseen.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from apps.common.json_value import JsonObject, JsonValue


@dataclass(slots=True)
class Turn:
    """A message on its way through the rules."""

    role: str
    """system, user, assistant or tool"""
    text: str
    raw_bytes: int
    """UTF-8 bytes of the value it came from."""
    num_raw: int = 1
    """How many input messages it holds: more than one after a merge."""
    is_learned: bool = True
    """Whether an assistant's turn is in the loss."""
    tool_calls: str | None = None
    """JSON list of {type, function: {name, arguments}} of an assistant's turn."""
    tool_call_id: str | None = None
    """Of a tool's turn: the call it answers."""
    name: str | None = None
    """Of a tool's turn: the function."""
    is_page: bool = False
    """Whether the text was the HTML of a page."""

    def with_text(self, text: str) -> "Turn":
        """The same turn with another text; itself when that is equal."""
        return self if text == self.text else replace(self, text=text)

    def joined_with(self, other: "Turn") -> "Turn":
        """One turn of two; it is learned when both are."""
        calls = self.tool_calls
        if calls and other.tool_calls:
            calls = f"{calls[:-1]},{other.tool_calls[1:]}"
        return Turn(
            self.role,
            "\n\n".join(filter(None, (self.text, other.text))),
            self.raw_bytes + other.raw_bytes,
            self.num_raw + other.num_raw,
            is_learned=self.is_learned and other.is_learned,
            tool_calls=calls or other.tool_calls,
        )


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Messages of a record that are no part of the conversation, by the reason."""

    reason: str
    messages: int
    bytes: int


@dataclass(slots=True)
class RawConversation:
    """What a layout reads of one record, HTML still in place."""

    turns: list[Turn] = field(default_factory=list[Turn])
    source_id: str = ""
    model: str | None = None
    has_plugins: bool = False
    flags: set[str] = field(default_factory=set[str])
    """Which of those that `rules.flagged` knows the record says of itself."""
    media: list[str] = field(default_factory=list[str])
    """Kinds of parts, and fields, that are no text: image_url, input_audio, images..."""
    tools: str | None = None
    """JSON list of the functions that the model could call."""
    left_out: list[LeftOut] = field(default_factory=list[LeftOut])
    repaired: Counter[str] = field(default_factory=Counter[str])
    """Messages that were mended, by what was wrong with them."""
    ignored: list[str] = field(default_factory=list[str])
    """Fields with a value that nothing here carries; `messages[].x`, `pairs[].x` and
    `messages[].content[].x` for those of a message, a pair and a part."""


class Unreadable(ValueError):
    """Why a parsed value is not a conversation."""

    def __init__(self, reason: str, num_messages: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.num_messages = num_messages


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """Names beside the known ones, as `--map` gives them: theirs -> ours."""

    roles: Mapping[str, str] = field(default_factory=dict[str, str])
    """-> system, user, assistant or tool"""
    fields: Mapping[str, str] = field(default_factory=dict[str, str])
    """of a message"""
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    """of a record"""


Regrouped = Callable[[Iterable[bytes]], Iterator[bytes]]
"""JSON lines of all the parts in a file -> those of conversations, before it is read"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    name: str
    what: str
    """For people: where such files come from."""
    example: str
    """One record, as one line."""
    recognises: Callable[[JsonObject], bool]
    read: Callable[[JsonObject, Names], RawConversation]
    """Raises Unreadable."""
    regrouped: Regrouped | None = None
    """Of a layout whose records are parts of conversations."""
    has_html: bool = False
    """Answers may be the HTML of a page."""


def size_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def is_set(value: object) -> bool:
    """Whether a field says anything; a table has NaN where nothing is."""
    return value is not None and value != "" and value != [] and value != {} and value == value


def fields_beside(given: JsonObject, read: Collection[str]) -> list[str]:
    """The fields that say something, and that are not among those that are read."""
    return [key for key, value in given.items() if key not in read and is_set(value)]


def text_of(record: JsonObject, *keys: str) -> str:
    """The first of the fields that holds a text or a number, as text; "" for none, and for NaN."""
    for key in keys:
        value = record.get(key)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
            return str(value)
    return ""


def list_of(value: object) -> list[JsonValue] | None:
    return cast(list[JsonValue], value) if isinstance(value, list) else None


def object_of(value: object) -> JsonObject | None:
    return cast(JsonObject, value) if isinstance(value, dict) else None
