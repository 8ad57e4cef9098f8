"""`python -m apps.train base|run|export`: from packed rows to a model folder."""

import sys

from apps.common.cli import Command, run
from apps.common.events import Reporter
from apps.train.config import BaseConfig


def base(config: BaseConfig, reporter: Reporter) -> None:
    from apps.train.pretrain import run_base

    run_base(config, reporter)


COMMANDS = {
    "base": Command(
        config=BaseConfig, run=base, help="make a small base model: pre-train it on plain text"
    ),
}

if __name__ == "__main__":
    sys.exit(run("apps.train", COMMANDS))
