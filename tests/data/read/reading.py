"""Forty records, every way to write them down, and one file read without the command."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import zstandard

from apps.common.errors import InputError
from apps.data import clean, clean_range, ranges
from apps.data.config import CleanConfig
from apps.data.ledger import Ledger
from apps.data.read import index, inputs
from apps.data.rules.profiles import none
from tests.data.commands import conversation

RECORDS = [
    conversation(f"r{i}", f'Question {i}: a, b {{ [ "x" \\ ü?', f"Answer {i} ]}}")
    for i in range(40)
]
TEXTS = [record["conversations"][0]["value"] for record in RECORDS]


def read(path: Path, *, unit_bytes: int = 1 << 20) -> tuple[list[clean_range.Output], Ledger]:
    """Index a file and read all its ranges, without writing anything."""
    config = CleanConfig(inputs=(str(path),), out="unused", rules=none())
    return read_all(config, unit_bytes)


def read_all(config: CleanConfig, unit_bytes: int) -> tuple[list[clean_range.Output], Ledger]:
    """The same of all files that settings name; members of an archive are files too."""
    try:
        files = inputs.find(config.inputs).files
    except InputError:
        return [], Ledger()  # a damaged archive
    folder = Path(config.inputs[0]).parent / "spool"
    indexed = [
        index.index(unit.args, str(folder / str(i)))
        for i, unit in enumerate(index.units(files, unit_bytes, config.reading()))
    ]
    found = index.join(indexed)
    total = clean.damage_of(found)
    outputs: list[clean_range.Output] = []
    for unit in ranges.range_units(found, config):
        outputs.append(clean_range.clean_range(unit.args))
        total.add(outputs[-1].ledger)
    total.check()
    if all(file.format == "json" for file in found):
        assert total.bytes.input == sum(file.bytes for file in found)
    return outputs, total


def kept_texts(outputs: list[clean_range.Output]) -> list[str]:
    return [row.messages[0]["content"] for output in outputs for row in output.kept]


def reasons(outputs: list[clean_range.Output]) -> list[str]:
    return [row.reason for output in outputs for row in output.quarantined]


FORMS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    # how the records of a dump can be written down
    "array": lambda r: orjson.dumps(r),
    "indented": lambda r: json.dumps(r, indent=2).encode(),
    "ascii": lambda r: json.dumps(r).encode(),
    "keyed": lambda r: orjson.dumps({"version": 3, "data": r, "meta": {"x": [1]}}),
    "keyed-indented": lambda r: json.dumps({"data": r}, indent=1).encode(),
    "lines": lambda r: b"\n".join(map(orjson.dumps, r)),
    "windows-lines": lambda r: b"\xef\xbb\xbf" + b"\r\n".join(map(orjson.dumps, r)) + b"\r\n\r\n",
    "messages": lambda r: orjson.dumps([{"messages": as_openai(x), "id": x["id"]} for x in r]),
    "nested-ids": lambda r: orjson.dumps([{**x, "conversations": _with_ids(x)} for x in r]),
    "spaced": lambda r: orjson.dumps(r).replace(b'"id":', b'"id"' + 9 * b" " + b":"),
    "far-spaced": lambda r: orjson.dumps(r).replace(b'"id":', b'"id"' + 101 * b" " + b":"),
    "bare-lists": lambda r: orjson.dumps([x["conversations"] for x in r]),
    "bare-list-lines": lambda r: b"\n".join(orjson.dumps(x["conversations"]) for x in r),
    "arrays-side-by-side": lambda r: orjson.dumps(r[:20]) + b"\n" + orjson.dumps(r[20:]),
    "array-lines": lambda r: b"\n".join(orjson.dumps([x]) for x in r),
    "lists-before": lambda r: orjson.dumps({"errors": [], "shape": [1, 2], "data": r}),
    "object-before": lambda r: orjson.dumps({"meta": {"id": "x", "n": [1]}, "data": r}),
    "long-text-before": lambda r: orjson.dumps({"licence": "[{ " * 3000, "data": r}),
    "byte-order-mark-lines": lambda r: b"\n".join(b"\xef\xbb\xbf" + orjson.dumps(x) for x in r),
    "other-first-key": lambda r: orjson.dumps(list(map(_sometimes_turned, r))),
    "concatenated": lambda r: b"\n".join(orjson.dumps(x, option=orjson.OPT_INDENT_2) for x in r),
    "one-record": lambda r: orjson.dumps(r[0]),
    "utf-16": lambda r: json.dumps(r, ensure_ascii=False).encode("utf-16"),
    "gzip": lambda r: gzip.compress(orjson.dumps(r)),
    "zstd": lambda r: zstandard.compress(b"\n".join(map(orjson.dumps, r))),
    "two-zstd-frames": lambda r: b"".join(zstandard.compress(orjson.dumps(x) + b"\n") for x in r),
    "pzstd": lambda r: b"".join(_pzstd_frame(orjson.dumps(x) + b"\n") for x in r),
    "two-gzip-members": lambda r: b"".join(gzip.compress(orjson.dumps(x) + b"\n") for x in r),
}


def _pzstd_frame(data: bytes) -> bytes:
    """Parallel zstd says the size of each frame in one to be skipped before it."""
    frame = zstandard.compress(data)
    return b"\x50\x2a\x4d\x18\x04\0\0\0" + len(frame).to_bytes(4, "little") + frame


def as_openai(record: dict[str, Any]) -> list[dict[str, str]]:
    roles = {"human": "user", "gpt": "assistant"}
    return [{"role": roles[t["from"]], "content": t["value"]} for t in record["conversations"]]


def _with_ids(record: dict[str, Any]) -> list[dict[str, str]]:
    return [{"id": "m", **turn} for turn in record["conversations"]]


def _sometimes_turned(record: dict[str, Any]) -> dict[str, Any]:
    if int(record["id"][1:]) % 3:
        return record
    return {"conversations": record["conversations"], "id": record["id"]}


def mutate(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data) + 1)
    kind = draw.randrange(4)
    if kind == 0:
        del data[at : at + draw.randint(1, 200)]
    elif kind == 1:
        data[at:at] = draw.choice(
            [b'"', b"{", b"}", b"[", b"]", b",", b"\\", b"\x00", b"\xff", b"\n"]
        )
    elif kind == 2:
        data[at:at] = data[: draw.randint(0, 300)]
    else:
        del data[at:]
