"""`--map`: names of roles, message fields and columns that no layout knows, as text or YAML.

role:gpt4=assistant,field:body=content,column:dialog=messages

role: {gpt4: assistant}            the same, as a file
field: {body: content}
column: {dialog: messages}

{"column": {"dialog, all": "messages"}}    the same as JSON, for names with commas
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from apps.common.errors import ConfigError
from apps.common.files import config as configs
from apps.data.read.record.layout import Names, object_of
from apps.data.read.record.lists import KEYS
from apps.data.read.record.messages import WHAT, WHO
from apps.data.read.record.parse import parse

_ROLES = ("system", "user", "assistant", "tool")
_FIELDS = (*WHO, *WHAT, "weight", "train", "tool_calls", "tool_call_id", "name")
_COLUMNS = (
    *("id", "model", "system", "tools", "history", *KEYS),
    *("instruction", "input", "output", "context", "response", "prompt", "completion"),
    *("toxic", "redacted", "moderation", "plugins"),
)
_KNOWN = {"role": _ROLES, "field": _FIELDS, "column": _COLUMNS}
_ENTRY = re.compile(r"=.*\b(?:role|field|column):")
_EXAMPLE = "role:gpt4=assistant,field:body=content,column:dialog=messages"


def parse_map(text: str) -> Names:
    """The names that `--map` gives. Raises ConfigError."""
    given: dict[str, dict[str, str]] = {kind: {} for kind in _KNOWN}
    for kind, theirs, ours in _entries(text):
        if (other := given[kind].get(theirs, ours)) != ours:
            raise ConfigError(f"--map names {kind} {theirs!r} twice, as {other!r} and {ours!r}.")
        if ours not in _KNOWN[kind]:
            known = ", ".join(dict.fromkeys(_KNOWN[kind]))
            raise ConfigError(
                f"--map gives {kind} {theirs!r} as {ours!r}; expected one of {known}."
            )
        given[kind][theirs] = ours
    roles = dict(given["role"])
    for name, role in given["role"].items():
        roles.setdefault(name.strip().lower(), role)
    return Names(roles=roles, fields=given["field"], columns=given["column"])


def _entries(text: str) -> list[tuple[str, str, str]]:
    if text.endswith((".yaml", ".yml")):
        return _of_kinds(text, configs.load_yaml(text))
    if text.startswith("{"):
        return _of_kinds("--map", object_of(parse(text)) or {"": None})
    entries: list[tuple[str, str, str]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        kind, colon, rest = part.partition(":")
        theirs, equals, ours = (piece.strip() for piece in rest.rpartition("="))
        is_whole = colon and equals and theirs and ours
        if kind not in _KNOWN or not is_whole or _ENTRY.search(theirs):
            raise ConfigError(f"--map has {part!r}; {_advice(kind, theirs or rest, ours)}.")
        entries.append((kind, theirs, ours))
    return entries


def _advice(name: str, first: str, second: str) -> str:
    """The entry as it is written here, where our own name stands in front of theirs.

    content:text, content:text=...   ->  field:text=content
    content:text=body                ->  field:body=content
    """
    if _ENTRY.search(first):
        return f"expected a comma between two entries, as in {_EXAMPLE}"
    theirs = second if second.strip(".") and second not in (*_FIELDS, *_COLUMNS) else first
    if theirs and name == "role":
        return f"write role:{theirs}=assistant for a speaker, or field:{theirs}=role for a field"
    if theirs and name in (*_FIELDS, *_COLUMNS):
        kind = "field" if name in _FIELDS else "column"
        return f"their name stands first and ours last: write {kind}:{theirs}={name}"
    return f"expected entries such as {_EXAMPLE}"


def _of_kinds(source: str, kinds: Mapping[str, object]) -> list[tuple[str, str, str]]:
    """`source` is the file or option that has the names."""
    entries: list[tuple[str, str, str]] = []
    for kind, names in kinds.items():
        if kind not in _KNOWN or not isinstance(names, Mapping):
            raise ConfigError(
                f"{source} has {kind!r}; expected role, field and column, each with names such as "
                f"those of {_EXAMPLE}."
            )
        values: Mapping[str, Any] = names  # pyright: ignore[reportUnknownVariableType]
        entries += [(kind, str(theirs), str(ours)) for theirs, ours in values.items()]
    return entries


def as_text(names: Names) -> str:
    """The inverse of `parse_map`, for the settings that lie beside an output: JSON where a name
    would not come back."""
    kinds = {"role": names.roles, "field": names.fields, "column": names.columns}
    given = [(kind, *pair) for kind, own in kinds.items() for pair in own.items()]
    if any("," in one or one != one.strip() or _ENTRY.search(one) for _, one, _ in given):
        return orjson.dumps({kind: dict(own) for kind, own in kinds.items() if own}).decode()
    return ",".join(f"{kind}:{theirs}={ours}" for kind, theirs, ours in given)
