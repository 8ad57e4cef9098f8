"""Conversations on the terminal.

python -m apps.data view clean
python -m apps.data view clean --rule blocked_words
"""

import sys
from collections.abc import Iterator

import orjson
from rich.console import Console
from rich.markdown import Markdown

from apps.common import schema, storage
from apps.common.errors import InputError, NotFoundError
from apps.common.events import Reporter
from apps.data import tables
from apps.data.config import ViewConfig
from apps.data.units import Json

_MAX_RAW_CHARS = 2000


def show(config: ViewConfig, reporter: Reporter) -> None:
    """Page through conversations; Enter shows the next, q ends.

    Without a terminal the first `limit` are written one after another, as JSON lines with
    `--log-format json`.
    """
    rows = _rows(config)
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    console = Console(highlight=False)
    for i, row in enumerate(rows):
        if i < config.start:
            continue
        if not is_terminal and i >= config.start + config.limit:
            return
        if reporter.is_json:
            reporter.event("conversation", **row)
            continue
        _print(console, i, row)
        if is_terminal and console.input("[dim]Enter: next, q: quit [/dim]").strip() == "q":
            return


def _rows(config: ViewConfig) -> Iterator[Json]:
    folder = config.folder
    if storage.read_commit(folder) is None:
        raise NotFoundError(
            f"{folder} holds no finished output of `python -m apps.data clean`; "
            "finish that command, or name its --out folder."
        )
    if config.rule is None:
        return _parts(folder, None)
    ledger = storage.read_json(storage.join(folder, schema.LEDGER_NAME))["records"]
    if config.rule == "quarantine":
        return _parts(storage.join(folder, schema.QUARANTINE_DIR), None)
    if config.rule not in ledger["dropped"]:
        known = ", ".join([*ledger["dropped"], "quarantine"])
        raise InputError(f"No rule {config.rule!r} dropped anything here; expected one of {known}.")
    return _parts(storage.join(folder, schema.DROPPED_DIR), config.rule)


def _parts(folder: str, rule: str | None) -> Iterator[Json]:
    for name in storage.list_dir(folder):
        if not name.endswith(".parquet"):
            continue
        for table in tables.batches(storage.join(folder, name)):
            for row in table.to_pylist():
                if rule is None or row["rule"] == rule:
                    yield {key: _plain(value) for key, value in row.items()}


def _plain(value: object) -> object:
    return value[:_MAX_RAW_CHARS].decode("utf-8", "replace") if isinstance(value, bytes) else value


def _print(console: Console, number: int, row: Json) -> None:
    name = row.get("id") or f"{row['source']} at byte {row['start_byte']:,}"
    why = row.get("reason") or " ".join(filter(None, (row.get("rule"), row.get("detail"))))
    facts = [name, row.get("language"), row.get("model"), why]
    console.rule(f"{number}")
    console.print(" | ".join(filter(None, facts)), style="dim", markup=False)
    if "raw" in row:
        console.print(row["raw"], markup=False)
        return
    for message in row.get("messages") or _raw_messages(row["record"]):
        console.print(f"[bold]{message['role']}[/bold]")
        if message["role"] == "assistant":
            console.print(Markdown(message["content"]))
        else:
            console.print(message["content"], markup=False)
        console.print()


def _raw_messages(record: str) -> list[Json]:
    """The turns of a dropped record, as the dump has them."""
    value = orjson.loads(record)
    turns = value.get("conversations") or value.get("messages") or []
    return [
        {
            "role": "raw " + str(turn.get("from", turn.get("role"))),
            "content": str(turn.get("value", turn.get("content"))),
        }
        for turn in turns
    ]
