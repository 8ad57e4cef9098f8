"""Conversations on the terminal.

python -m apps.data view clean
python -m apps.data view clean --rule blocked_words
"""

# pyarrow carries no types:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false

import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from apps.common.command.events import Reporter
from apps.common.errors import InputError, NotFoundError
from apps.common.files import schema, storage
from apps.data.config import ViewConfig
from apps.data.read import records
from apps.data.write import tables

Row = dict[str, Any]
"""A row of a Parquet file, by its columns."""
_MAX_RAW_CHARS = 2000
_MAX_SHOWN_CHARS = 100_000
"""Of a message; a second of Markdown. As JSON lines it is whole."""
_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n\r"
}
"""What would move the cursor or rename the window is shown, not done."""


def show(config: ViewConfig, reporter: Reporter) -> None:
    """Page through conversations; Enter shows the next, q ends.

    Without a terminal the first `limit` are written one after another, as JSON lines with
    `--log-format json`.
    """
    rows = _rows(config)
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    console = Console(highlight=False, emoji=False)
    for i, row in enumerate(rows):
        if i < config.start:
            continue
        if not is_terminal and i >= config.start + config.limit:
            return
        if reporter.is_json:
            reporter.event("conversation", **row)
            continue
        _print(console, i, row)
        if is_terminal and not _wants_next(console):
            return


def _wants_next(console: Console) -> bool:
    try:
        return console.input("[dim]Enter: next, q: quit [/dim]").strip() != "q"
    except EOFError:
        console.print()
        return False


def _rows(config: ViewConfig) -> Iterator[Row]:
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


def _parts(folder: str, rule: str | None) -> Iterator[Row]:
    for name in storage.list_dir(folder):
        if not name.endswith(".parquet"):
            continue
        for table in tables.batches(storage.join(folder, name)):
            for row in table.to_pylist():
                if rule is None or row["rule"] == rule:
                    yield {key: _plain(value) for key, value in row.items()}


def _plain(value: object) -> object:
    return value[:_MAX_RAW_CHARS].decode("utf-8", "replace") if isinstance(value, bytes) else value


def _print(console: Console, number: int, row: Row) -> None:
    name = row.get("id") or f"{row['source']} at byte {row['start_byte']:,}"
    why = row.get("reason") or " ".join(filter(None, (row.get("rule"), row.get("detail"))))
    facts = [name, row.get("language"), row.get("model"), why]
    console.rule(f"{number}")
    console.print(_shown(" | ".join(filter(None, facts))), style="dim", markup=False)
    if "raw" in row:
        console.print(_shown(row["raw"]), markup=False)
        return
    for message in row.get("messages") or _raw_messages(row["record"]):
        is_learned = message.get("weight") is None or message["weight"] > 0
        role = message["role"] + ("" if is_learned else " (not learned)")
        console.print(_shown(role), style="bold", markup=False)
        parts = (message["content"], message.get("tool_calls"))
        text = _shown("\n\n".join(filter(None, parts)))
        if message["role"] == "assistant":
            console.print(Markdown(text))
        else:
            console.print(text, markup=False)
        console.print()


def _shown(text: str) -> str:
    """What a terminal can print without obeying it."""
    text, more = text[:_MAX_SHOWN_CHARS], len(text) - _MAX_SHOWN_CHARS
    shown = text.translate(_CONTROLS)
    return f"{shown}\n\n({more:,} more characters)" if more > 0 else shown


def _raw_messages(record: str) -> list[Row]:
    """The turns of a dropped record, as the dump has them; all of it where `--map` named them."""
    turns = records.raw_turns(record) or [("record", record)]
    return [{"role": f"raw {role}", "content": text} for role, text in turns]
