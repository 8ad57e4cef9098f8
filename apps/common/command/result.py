"""What a command found out: lines for people, an event for programs, a file for `--save`."""

from collections.abc import Iterable
from typing import Protocol

from apps.common.command.events import Reporter
from apps.common.files import storage
from apps.common.files.config import to_dict, write_resolved
from apps.common.files.json_floats import to_json


class Saving(Protocol):
    """The settings of such a command."""

    @property
    def save(self) -> str | None:
        """the folder to keep it in"""
        ...


def show_and_save(
    result: object, name: str, lines: Iterable[str], config: Saving, reporter: Reporter
) -> None:
    """`result` is a dataclass, `name` that of its file; the settings are saved beside it."""
    if reporter.is_json:
        reporter.event(name.removesuffix(".json"), **to_dict(result))
    else:
        for line in lines:
            reporter.line(line)
    if config.save:
        storage.write_json(storage.join(config.save, name), to_json(to_dict(result)))
        write_resolved(config, config.save)
