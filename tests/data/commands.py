"""`clean` run in this process on small dumps, and what it left."""

import hashlib
import json
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from apps.common.command.events import Reporter
from apps.data import clean
from apps.data.config import CleanConfig


def conversation(name: str, *texts: str) -> dict[str, Any]:
    roles = ("human", "gpt")
    turns = [{"from": roles[i % 2], "value": text} for i, text in enumerate(texts)]
    return {"id": name, "conversations": turns}


def run_clean(out: Path, *inputs: Path, **settings: Any) -> dict[str, Any]:
    config = CleanConfig(inputs=tuple(map(str, inputs)), out=str(out), **settings)
    resolved, files = clean.prepare(config)
    if not clean.finished(resolved, files, Reporter("json")):
        clean.run(resolved, files, Reporter("json"))
    return json.loads((out / "ledger.json").read_bytes())


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Of all Parquet files in a folder; messages without the fields that they do not have."""
    rows = [
        row for part in sorted(folder.glob("*.parquet")) for row in pq.read_table(part).to_pylist()
    ]
    for row in rows:
        for message in row.get("messages", ()):
            for name in [name for name, value in message.items() if value is None]:
                del message[name]
    return rows


def write_dump(path: Path, records: list[Any]) -> Path:
    path.write_bytes(orjson.dumps(records))
    return path


def digests(out: Path) -> dict[str, str]:
    found = {
        str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in out.rglob("*.parquet")
    }
    return found | {"ledger": (out / "ledger.json").read_text()}
