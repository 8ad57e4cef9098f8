"""The evaluation's commands as a test types them, and the files they read."""

import json
from pathlib import Path

from apps.common.command.cli import run
from apps.eval.__main__ import COMMANDS


def command(*arguments: str) -> int:
    """Exit code of `python -m apps.eval ...`, run in this process."""
    return run("apps.eval", COMMANDS, [*arguments, "--log-format", "json"])


def jsonl(path: Path, records: list[dict]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)
