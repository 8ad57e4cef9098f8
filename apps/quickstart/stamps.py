"""Which steps are done, as a small file for each in DIR/MODEL/.steps says."""

from pathlib import Path

from apps.common.files import config, storage
from apps.quickstart.steps import Step


class Stamps:
    """A stamp holds a digest of its step's arguments and of those of all steps that it needs."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._keys: dict[str, str] = {}

    def knows(self, step: Step) -> bool:
        """Whether `is_done` was asked of it."""
        return step.name in self._keys

    def is_done(self, step: Step, hidden: str) -> bool:
        """Whether an earlier run did it: to be asked of each step once, after those it needs.

        `hidden` is a part of the arguments that does not count.
        """
        plain = [a.replace(hidden, "") if hidden else a for a in step.arguments]
        before = [self._keys[name] for name in step.needs if name in self._keys]
        key = self._keys[step.name] = config.digest_of([*before, *plain])
        stamp = self._path(step)
        is_stamped = storage.exists(stamp) and storage.read_bytes(stamp).decode() == key
        return is_stamped and storage.exists(step.output)

    def put(self, step: Step) -> None:
        """It is done."""
        storage.write_atomic(self._path(step), self._keys[step.name].encode())

    def log_of(self, step: Step) -> Path:
        """File beside the stamp for what the step prints; its folder is there."""
        path = Path(storage.local_path(f"{self._path(step)}.log"))
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _path(self, step: Step) -> str:
        return f"{self._folder}/{step.name}"
