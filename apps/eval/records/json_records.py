"""Files of questions and answers -> numbered records, and their fields -> text that really is text.

Read are JSON lines and a JSON array, in UTF-8 with or without a byte order mark, with any line
ends. A field that holds null, a number or an object where a text belongs is refused by line and
name: written out as "None" it would be judged.
"""

from dataclasses import dataclass
from typing import TypeGuard

import orjson

from apps.common.errors import InputError
from apps.common.files import parts, storage
from apps.common.json_value import JsonObject, JsonValue

_BOM = b"\xef\xbb\xbf"
_OTHER_BOMS = (b"\xff\xfe", b"\xfe\xff")
_THOUGHTS = ("thinking", "reasoning", "redacted_thinking")
_OWN_START = b'{"question_id":'


@dataclass(frozen=True, slots=True)
class Record:
    """One JSON object of a file."""

    where: str
    """file and line, for sentences"""
    fields: JsonObject

    def refused(self, field: str, expected: str) -> InputError:
        """The error that says what a field holds and what it should."""
        if field not in self.fields:
            return InputError(f"{self.where} has no {field}; expected {expected}")
        said = repr(self.fields[field])
        said = said if len(said) <= 80 else f"{said[:77]}..."
        return InputError(f"{self.where}: {field} is {said}; expected {expected}")

    def text(self, field: str) -> str:
        value = self.fields.get(field)
        if not isinstance(value, str):
            raise self.refused(field, "text")
        return value

    def instruction(self) -> str:
        """Alpaca's `instruction`, with the `input` that it is about where there is one."""
        asked = self.text("instruction")
        about = self.text("input") if self.fields.get("input") else ""
        return f"{asked}\n\n{about}" if about.strip() else asked

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of texts, or of parts with `content`; one text stands for a list of one."""
        value = self.fields.get(field)
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list) or not value:
            raise self.refused(field, "a list of texts")
        texts = [text for item in value if (text := content_of(item)) is not None]
        if len(texts) < len(value):
            raise self.refused(field, "texts only")
        return tuple(texts)

    def said_by(self, role: str) -> tuple[str, ...]:
        """What one role says in OpenAI's `messages`."""
        mine = self._messages_of(role)
        texts = [text for item in mine if (text := content_of(item)) is not None]
        if not texts or len(texts) < len(mine):
            raise self.refused("messages", f"the {role}'s content to be text")
        return tuple(texts)

    def thought_by(self, role: str) -> tuple[str, ...]:
        """What one role thought before each of its turns; () where it tells nothing."""
        thoughts = tuple(map(thought_of, self._messages_of(role)))
        return thoughts if any(thoughts) else ()

    def _messages_of(self, role: str) -> list[JsonObject]:
        messages = self.fields.get("messages")
        if not isinstance(messages, list):
            raise self.refused("messages", "a list of {role, content}")
        return [item for item in messages if isinstance(item, dict) and item.get("role") == role]

    def choice(self) -> tuple[str, ...]:
        """The turns of MT-bench's only choice."""
        choices = self.fields.get("choices")
        if not isinstance(choices, list) or len(choices) != 1:
            raise self.refused("choices", "a list of one choice with turns")
        inner = _record(choices[0], f"{self.where}, choices[0]")
        return inner.texts("turns")

    def identity(self, field: str) -> str:
        """An id: a text or a whole number."""
        value = self.fields.get(field)
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)  # as tables write whole numbers; larger ones have lost digits
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
            raise self.refused(field, "a text or a whole number")
        return str(value)


def content_of(item: JsonValue) -> str | None:
    """The text of a turn: itself, its `content`, its text parts; None where it is not all text.

    A picture or a tool's call is no text, and thoughts are no part of what was said.
    """
    if isinstance(item, dict):
        inner = item.get("content", item.get("text"))
        item = inner.get("answer") if isinstance(inner, dict) else inner  # Arena-Hard v2
    if isinstance(item, list):
        said = [part for part in item if not _is_thought(part)]
        texts = [content_of(part) for part in said if isinstance(part, dict)]
        whole = [text for text in texts if text is not None]
        return "".join(whole) if whole and len(whole) == len(said) else None
    return item if isinstance(item, str) else None


def thought_of(item: JsonValue) -> str:
    """What was thought before a turn: its `reasoning_content`, or its parts of thoughts; or ""."""
    if not isinstance(item, dict):
        return ""
    beside = item.get("reasoning_content") or item.get("reasoning")
    if isinstance(beside, str):
        return beside
    parts = item.get("content")
    thoughts = [part for part in parts if _is_thought(part)] if isinstance(parts, list) else []
    texts = [part.get("thinking") or part.get("text") for part in thoughts]
    return "".join(text for text in texts if isinstance(text, str))


def _is_thought(part: JsonValue) -> TypeGuard[JsonObject]:
    return isinstance(part, dict) and part.get("type") in _THOUGHTS


def read_records(uri: str, is_own: bool = False) -> list[Record]:
    """Every record of a file.

    `is_own` takes a file that grows under our hands, and of which none may be there yet. A line
    that a killed writer left unfinished is passed over, for what it said is asked again. In a file
    of somebody else such a line would be lost in silence.
    """
    data = (parts.read(uri) or b"") if is_own else storage.read_bytes(uri)
    return parse_records(data, uri, is_own)


def parse_records(data: bytes, uri: str, is_own: bool = False) -> list[Record]:
    if data.startswith(_OTHER_BOMS):
        raise InputError(
            f"{uri} is UTF-16 or UTF-32; expected UTF-8: save it again in that encoding"
        )
    data = data.removeprefix(_BOM)
    if data.lstrip()[:1] == b"[":
        values = _array(data, uri)
        return [_record(value, f"{uri} item {n}") for n, value in enumerate(values, 1)]
    records: list[Record] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        where = f"{uri} line {number}"
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            if is_own and _is_torn(line):
                continue
            raise InputError(f"{where} is not JSON: {error}") from None
        records.append(_record(value, where))
    return records


def _is_torn(line: bytes) -> bool:
    """Whether it is the beginning of one of our own lines."""
    start = line[: len(_OWN_START)]
    return _OWN_START.startswith(start) and not line.rstrip().endswith(b"}")


def _array(data: bytes, uri: str) -> list[JsonValue]:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{uri} is not a JSON array: {error}") from None


def _record(value: JsonValue, where: str) -> Record:
    if not isinstance(value, dict):
        said = repr(value)[:80]
        raise InputError(f'{where} is {said}; expected an object such as {{"question_id": 1}}')
    return Record(where, value)
