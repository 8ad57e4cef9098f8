"""What Cria can do: `python -m apps` prints every app with its commands."""

import sys
from importlib import import_module

from apps.common.command import cli
from apps.common.version import VERSION

APPS = {
    "data": "raw dumps -> clean conversations -> packed rows",
    "train": "packed rows -> checkpoints -> model folder",
    "serve": "model folders -> OpenAI API and web page",
    "eval": "questions -> answers -> judgments -> report",
}


def overview() -> str:
    blocks = ["usage: python -m apps.APP COMMAND ...    (COMMAND --help lists its settings)"]
    for app, what in APPS.items():
        commands = import_module(f"apps.{app}.__main__").COMMANDS
        blocks.append("\n".join([f"apps.{app}: {what}", *cli.rows(commands)]))
    blocks.append("apps.quickstart: all of it on one machine, as `make demo` does")
    return "\n\n".join(blocks)


if __name__ == "__main__":
    print(f"Cria {VERSION}" if sys.argv[1:] == ["--version"] else overview())
    sys.exit(0 if len(sys.argv) == 1 or sys.argv[1] in ("-h", "--help", "--version") else 2)
