"""The file of keys: `{keys: [{name, sha256, ...}]}` in YAML, with digests only.

People write into it too, so a change keeps what it does not concern: comments, order, other
settings. Of a file

    keys:
    # until June
    - {name: ali, ...}           revoking ali takes his lines and the comment right above them
    - name: bob                  rotating bob's key changes these letters alone:
      sha256: 5e88...            <- the digest
      tokens_per_minute: 900     # as agreed
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence

import yaml

from apps.common.errors import ConfigError
from apps.common.files import config as configs
from apps.common.files import storage
from apps.serve.config import ApiKey

_Edit = tuple[int, int, str]
"""what stands from here to there in a text, and what shall"""


def read_keys(uri: str) -> tuple[ApiKey, ...]:
    """The file's keys; none of a file that does not exist. Raises ConfigError."""
    return _listed(uri, configs.load_yaml(uri)) if storage.exists(uri) else ()


def read_keys_again(uri: str) -> tuple[ApiKey, ...]:
    """Of a file in use. One that is gone or empty is being written, or was lost. Raises ConfigError
    for that too."""
    settings = configs.load_yaml(uri) if storage.exists(uri) else {}
    if "keys" not in settings:
        raise ConfigError(f"{uri} is gone or empty; `keys: []` in it says that there are none.")
    return _listed(uri, settings)


def _listed(uri: str, settings: Mapping[str, object]) -> tuple[ApiKey, ...]:
    entries = settings.get("keys")
    if entries is None:
        entries = []
    if not isinstance(entries, list):
        raise ConfigError(f"{uri}: keys is not a list; `python -m apps.serve keys` writes one.")
    return tuple(
        configs.from_dict(ApiKey, entry, where=f"{uri}: keys[{i}].")
        for i, entry in enumerate(entries)
    )


def write_keys(uri: str, before: Sequence[ApiKey], after: Sequence[ApiKey]) -> None:
    """`before` is what the file has now; in another form where it cannot be changed in its own."""
    old = storage.read_bytes(uri).decode("utf-8-sig") if storage.exists(uri) else ""
    text = _edited(old if old.endswith("\n") or not old else f"{old}\n", before, after)
    if not text or _keys_of(text) != {key.sha256: configs.to_dict(key) for key in after}:
        text = f"keys:\n{_items(after, '')}" if after else "keys: []\n"
    storage.write_atomic(uri, text.encode(), new_mode=0o600)


@contextlib.contextmanager
def one_writer(uri: str) -> Iterator[None]:
    """From reading the file to writing it: what two commands add at once is there afterwards.

    The lock is its folder's, for the file itself is replaced. A bucket has no locks.
    """
    folder = os.path.dirname(storage.local_path(uri)) if storage.is_local(uri) else ""
    with contextlib.suppress(OSError):  # whoever writes the file says why that cannot be
        os.makedirs(folder, exist_ok=True)
    if not os.path.isdir(folder):
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _edited(text: str, before: Sequence[ApiKey], after: Sequence[ApiKey]) -> str:
    """The text with what differs; anything, where it is not written as a block of entries."""
    value = _value_of_keys(text)
    if not before:
        begin, end = (value.start_mark.index, value.end_mark.index) if value else (len(text),) * 2
        return f"{text[:begin]}{'' if value else 'keys:'}\n{_items(after, '')}{text[end:]}"
    if not isinstance(value, yaml.SequenceNode) or value.flow_style:
        return ""
    entries: list[yaml.MappingNode] = value.value
    new = {key.sha256: key for key in after}
    edits: list[_Edit] = []
    for key, entry in zip(before, entries, strict=True):
        same = new.pop(key.sha256, None)
        if same is None:  # another key of that name may take its place
            digest = next((d for d, one in new.items() if _takes_over(one, key, before)), "")
            same = new.pop(digest, None)
        edits += _removed(text, entry) if same is None else _changed(text, entry, key, same)
    end = _line_end(text, _end(entries[-1]))
    indent = " " * (entries[0].start_mark.column - 2)
    edits.append((end, end, _items(list(new.values()), indent)))
    for begin, end, instead in sorted(edits, reverse=True):
        text = text[:begin] + instead + text[end:]
    return text


def _takes_over(new: ApiKey, old: ApiKey, before: Sequence[ApiKey]) -> bool:
    return new.name == old.name and new.sha256 not in {key.sha256 for key in before}


def _value_of_keys(text: str) -> yaml.Node | None:
    root = yaml.compose(text, yaml.SafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == "keys"), None)


def _removed(text: str, entry: yaml.Node) -> list[_Edit]:
    """Its lines, and the comment right above them."""
    begin = _line_begin(text, entry.start_mark.index)
    while begin and text[_line_begin(text, begin - 1) : begin].lstrip().startswith("#"):
        begin = _line_begin(text, begin - 1)
    return [(begin, _line_end(text, _end(entry)), "")]


def _changed(text: str, entry: yaml.MappingNode, old: ApiKey, new: ApiKey) -> list[_Edit]:
    edits: list[_Edit] = []
    had, has = configs.to_dict(old), configs.to_dict(new)
    nodes = {name.value: value for name, value in entry.value}
    for name in (name for name in has if has[name] != had[name]):
        written = yaml.safe_dump(has[name]).removesuffix("...\n").strip()
        if name in nodes:
            begin, end = nodes[name].start_mark.index, nodes[name].end_mark.index
            edits.append((begin, len(text[:end].rstrip()), written))
        else:
            end = _line_end(text, _end(entry))
            edits.append((end, end, f"{' ' * entry.start_mark.column}{name}: {written}\n"))
    return edits


def _end(node: yaml.Node) -> int:
    """Where its last letter stands; a block's own mark is where the next thing begins."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        return node.end_mark.index
    last = node.value[-1]
    return _end(last[1] if isinstance(node, yaml.MappingNode) else last)


def _line_begin(text: str, index: int) -> int:
    return text.rfind("\n", 0, index) + 1


def _line_end(text: str, index: int) -> int:
    """Of the last line with something in it; a `|` text has its line breaks before its end."""
    return text.index("\n", len(text[:index].rstrip())) + 1


def _items(keys: Sequence[ApiKey], indent: str) -> str:
    if not keys:
        return ""
    dumped = yaml.safe_dump([configs.to_dict(k) for k in keys], sort_keys=False, allow_unicode=True)
    return "".join(f"{indent}{line}" for line in dumped.splitlines(keepends=True))


def _keys_of(text: str) -> dict[str, object]:
    try:
        entries = (yaml.safe_load(text) or {}).get("keys") or []
        keys = [configs.from_dict(ApiKey, entry) for entry in entries]
    except (yaml.YAMLError, ConfigError):
        return {"": None}
    return {key.sha256: configs.to_dict(key) for key in keys}
