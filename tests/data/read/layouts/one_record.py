"""One record, cleaned: a question and its answer, and what comes out."""

from pathlib import Path
from typing import Any

import orjson

from tests.data.commands import rows_of, run_clean

ASKED = {"role": "user", "content": "What is the weather in Linz today?"}
ANSWER = {"role": "assistant", "content": "Three degrees below zero, and sunny."}


def clean_one(folder: Path, record: Any, **settings: Any) -> dict[str, Any]:
    """The ledger of one record, cleaned into folder/out."""
    (folder / "dump.jsonl").write_bytes(orjson.dumps(record) + b"\n")
    return run_clean(folder / "out", folder / "dump.jsonl", **{"profile": "none", **settings})


def said(folder: Path) -> list[tuple[str, str]]:
    (row,) = rows_of(folder / "out")
    return [(m["role"], m["content"]) for m in row["messages"]]
