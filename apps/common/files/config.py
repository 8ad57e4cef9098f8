"""Frozen dataclasses <-> YAML.

A configuration is a `@dataclass(frozen=True, kw_only=True, slots=True)`; nested dataclasses,
tuples, literals and `X | None` are the only shapes it needs. Unknown keys and wrong types are
refused with the dotted name of the key, so that a typing error never trains a model for a day.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeVar, cast

import yaml
from yaml.composer import ComposerError

from apps.common.errors import ConfigError, CorruptError
from apps.common.files import storage

T = TypeVar("T")

RESOLVED_NAME = "config.yaml"
_MAX_SHOWN_CHARS = 300


def to_dict(config: object) -> dict[str, object]:
    """Plain YAML-ready mapping of a dataclass, nested dataclasses included."""
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"expected a dataclass instance, got {type(config).__name__}")
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def write_json(record: object, uri: str) -> None:
    """Keep a dataclass in a file, whole or as it was before."""
    storage.write_json(uri, to_dict(record))


def read_json(cls: type[T], uri: str) -> T | None:
    """Inverse of `write_json`; None where nobody wrote it. Raises ConfigError, CorruptError."""
    if not storage.exists(uri):
        return None
    try:
        values = storage.read_json(uri)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptError(f"{uri} is no JSON ({error}); mend or delete it.") from error
    return from_dict(cls, values, where=f"{uri}: ")


def from_dict(cls: type[T], values: Mapping[str, object], *, where: str = "") -> T:
    """Inverse of `to_dict`. Raises ConfigError naming the dotted key that is wrong."""
    if not isinstance(cast(object, values), Mapping):
        raise _wrong_type(values, "a mapping of settings", where.rstrip(".: ") or "the whole")
    fields = {f.name: f for f in dataclasses.fields(cast(Any, cls))}
    hints = typing.get_type_hints(cls)
    kwargs: dict[str, object] = {}
    for key, value in values.items():
        name = str(key)
        if name not in fields:
            raise ConfigError(_unknown_key(where + name, name, list(fields)))
        kwargs[name] = _coerce(hints[name], value, where + name)
    for name, field in fields.items():
        has_default = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if name not in kwargs and not has_default:
            raise ConfigError(f"Setting {where + name!r} is missing and has no default; add it.")
    return cls(**kwargs)


def load(cls: type[T], uri: str) -> T:
    """Read a YAML file into `cls`."""
    return from_dict(cls, load_yaml(uri))


class _KeysAsWritten(yaml.SafeLoader):
    """YAML 1.1 takes `yes`, `no`, `on`, `off` and `null` for values; as keys they are words.

    A key that stands twice is refused: only one of them would hold.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"the key {key.value!r} stands twice"
                    raise ComposerError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        for key, _ in node.value:
            if key.tag in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"):
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def load_yaml(uri: str) -> dict[str, object]:
    """Read a YAML mapping; anything else is a ConfigError."""
    text = storage.read_bytes(uri)
    try:
        values = yaml.load(text, _KeysAsWritten)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: what looks like a date or a number and is none, or bytes that are no text.
        detail = _short(" ".join(str(error).split()))
        raise ConfigError(f"{uri} is not valid YAML ({detail}); mend the file.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise ConfigError(f"{uri} holds a YAML {kind}; expected a mapping of settings.")
    return cast(dict[str, object], values)


def digest(config: object) -> str:
    """Hex digest of the settings; equal settings give equal digests on every machine."""
    return digest_of(to_dict(config))


def digest_of(value: object) -> str:
    """Hex digest of anything that JSON can hold."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def dump(config: object) -> str:
    """YAML text of the settings, in field order."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def write_resolved(config: object, dir_uri: str, name: str = RESOLVED_NAME) -> None:
    """Write the resolved settings beside an output."""
    storage.write_atomic(storage.join(dir_uri, name), dump(config).encode())


def forget_resolved(dir_uri: str) -> None:
    """The settings of a run that is refused before it has begun: nothing else lies beside them."""
    if storage.list_dir(dir_uri) == [RESOLVED_NAME]:
        storage.remove_tree(storage.join(dir_uri, RESOLVED_NAME))


def flag(dotted: str) -> str:
    """A setting as it is typed: `metrics.val_rows` is --metrics.val-rows."""
    return f"--{dotted.replace('_', '-')}"


def at_least(least: int, config: object, section: str, *names: str) -> None:
    """Refuse settings below `least`, and those that are no finite number; None is a default.

    `section` is the dotted place of `config` in the command's settings, such as "optim.".
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and not least <= value < math.inf:
            raise ConfigError(f"{section}{name} is {value}; expected at least {least}.")


def above_zero(config: object, section: str, *names: str) -> None:
    """Refuse settings that are not positive and finite; None is a default."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{section}{name} is {value}; expected more than 0.")


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in cast(Mapping[object, object], value).items()}
    if isinstance(value, set | frozenset):
        return sorted(cast(set[str], value))
    if isinstance(value, list | tuple):
        return [_plain(held) for held in cast(Sequence[object], value)]
    return value


def _unknown_key(dotted: str, name: str, valid: list[str]) -> str:
    near = difflib.get_close_matches(name, valid, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"valid settings are {', '.join(valid)}."
    return f"Setting {dotted!r} is unknown; {hint}"


def _coerce(hint: Any, value: object, where: str) -> object:
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _coerce(typing.get_args(hint)[0], value, where)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _coerce_union(typing.get_args(hint), value, where)
    if origin is typing.Literal:
        allowed = typing.get_args(hint)
        if value not in allowed:
            raise ConfigError(
                f"Setting {where!r} is {_shown(value)}; expected one of {list(allowed)}."
            )
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return cast(object, value)
        return from_dict(hint, _expect_mapping(value, where), where=where + ".")
    if origin is tuple or origin is list or origin in (dict, Mapping):
        return _coerce_container(origin, typing.get_args(hint), value, where)
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        return _number(float, value, where)
    if hint is int and isinstance(value, str):
        return _number(int, value, where)
    if not isinstance(hint, type):
        raise TypeError(f"unsupported type {hint!r} for setting {where!r}")
    if issubclass(hint, Enum):
        if isinstance(value, hint):
            return value
        if value not in (allowed := [one.value for one in hint]):
            raise ConfigError(f"Setting {where!r} is {_shown(value)}; expected one of {allowed}.")
        return hint(value)
    if issubclass(hint, PurePath):
        return hint(_expect(str, value, where))
    return _expect(cast(type[object], hint), value, where)


def _coerce_union(options: tuple[object, ...], value: object, where: str) -> object:
    if value is None and type(None) in options:
        return None
    problems: list[ConfigError] = []
    for option in (o for o in options if o is not type(None)):
        try:
            return _coerce(option, value, where)
        except ConfigError as error:
            problems.append(error)
    raise problems[0]


def _coerce_container(
    origin: object, args: tuple[object, ...], value: object, where: str
) -> object:
    if origin is dict or origin is Mapping:
        mapping = _expect_mapping(value, where)
        return {
            str(k) if args[0] is str else k: _coerce(args[1], v, f"{where}.{k}")
            for k, v in mapping.items()
        }
    items = list(_expect_items(value, where))
    if origin is tuple and args and args[-1] is not Ellipsis:
        if len(items) != len(args):
            raise ConfigError(f"Setting {where!r} has {len(items)} items; expected {len(args)}.")
        return tuple(
            _coerce(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, items, strict=True))
        )
    made = [_coerce(args[0], v, f"{where}[{i}]") for i, v in enumerate(items)]
    return tuple(made) if origin is tuple else made


def _number(kind: type[int] | type[float], value: int | str, where: str) -> float:
    try:
        return kind(value)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"Setting {where!r} is {_shown(value)}; expected a number ({kind.__name__})."
        ) from None


def _expect(kind: type[T], value: object, where: str) -> T:
    if isinstance(value, kind) and not _is_bool_as_number(kind, value):
        return value
    raise _wrong_type(value, kind.__name__, where)


def _is_bool_as_number(kind: type, value: object) -> bool:
    return isinstance(value, bool) and kind in (int, float)


def _expect_mapping(value: object, where: str) -> Mapping[str, object]:
    if isinstance(value, Mapping):
        return cast(Mapping[str, object], value)
    raise _wrong_type(value, "Mapping", where)


def _expect_items(value: object, where: str) -> Sequence[object]:
    if isinstance(value, list | tuple):
        return cast(Sequence[object], value)
    raise _wrong_type(value, "list or tuple", where)


def _wrong_type(value: object, expected: str, where: str) -> ConfigError:
    return ConfigError(
        f"Setting {where!r} is {_shown(value)} ({type(value).__name__}); expected {expected}."
    )


def _shown(value: object) -> str:
    try:
        return _short(repr(value))
    except (ValueError, RecursionError):
        return "too long to show"  # Python writes out no integer of thousands of digits


def _short(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}..."
