"""One parsed record to one conversation: by its layout, under names and settings of the user."""

from dataclasses import dataclass, field
from typing import Literal

import orjson

from apps.common.json_value import JsonObject
from apps.data.html.detect import Html
from apps.data.read.layouts import alpaca, known, openai
from apps.data.read.record.layout import (
    Layout,
    Names,
    RawConversation,
    Unreadable,
)
from apps.data.read.record.lists import message_list
from apps.data.read.record.media import media_in_marks, without_marks
from apps.data.read.record.tool_calls import is_of_tools, without_tools

REFUSALS = ("no_messages", "media", "tools")
"""The rules by which a conversation is dropped as it was read, before all others."""
Tools = Literal["keep", "drop", "refuse"]
Media = Literal["drop", "refuse"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How records are read."""

    layout: str | None = None
    """the only layout, by name; None: each record's own"""
    names: Names = field(default_factory=Names)
    tools: Tools = "keep"
    """turns of tools and calls of them: stay, are left out, or drop the conversation"""
    media: Media = "refuse"
    """images and the like: are left out, or drop the conversation"""
    html: Html = "auto"
    """answers that are a page's HTML: by layout and evidence, all, or none"""
    is_told_to_a_model: bool = False
    """whether Alpaca's instructions are what the system says; a file's first records show it"""


def read_record(value: object, reading: Reading) -> tuple[RawConversation, Layout]:
    """A parsed value as a conversation, and the layout it had. Raises Unreadable."""
    record = known.as_record(value, reading.names)
    if record is None:
        raise Unreadable("bad-message" if isinstance(value, list) else "not-an-object")
    if reading.is_told_to_a_model:
        record = alpaca.with_system(record)
    layout = _layout(record, reading)
    try:
        conversation = layout.read(record, reading.names)
    except (RecursionError, orjson.JSONEncodeError) as error:  # which is no other than TypeError
        if "recursion" not in str(error).lower():
            raise
        raise Unreadable("nested-too-deep") from error
    conversation.media += media_in_marks(conversation.turns)
    if reading.tools == "drop":
        without_tools(conversation)
    if reading.media == "drop":
        without_marks(conversation)
        conversation.ignored += [f"media.{kind}" for kind in conversation.media]
    return conversation, layout


def _layout(record: JsonObject, reading: Reading) -> Layout:
    """A list of messages that begins with none is one with a fault."""
    if reading.layout is not None:
        layout = known.BY_NAME[reading.layout]
        if not layout.recognises(record) and message_list(record) is None:
            raise Unreadable(f"not-{layout.name}")
        return layout
    layout = known.recognised(record)
    if layout is not None:
        return layout
    if message_list(record) is not None:
        return openai.LAYOUT
    raise Unreadable("no-messages")


def refusal(conversation: RawConversation, reading: Reading) -> tuple[str, str] | None:
    """The rule by which a conversation is dropped as it was read, and why."""
    if not conversation.turns:
        return "no_messages", "no messages in the record"
    if conversation.media and reading.media == "refuse":
        return "media", conversation.media[0]
    if reading.tools == "refuse" and any(is_of_tools(turn) for turn in conversation.turns):
        return "tools", "turns of tools"
    return None
