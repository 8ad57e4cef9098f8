"""Whose folder `--out` is: a command goes on with its own output and leaves others' alone."""

from apps.common.errors import InputError
from apps.common.files import config as configs
from apps.common.files import storage
from apps.common.files.model_settings import CONFIG


def check_run_folder(out: str) -> None:
    """Refuse a folder that is somebody else's: a model, a pack or the output of another command."""
    theirs = _foreign(out, {"base", "data"}, is_model=False)
    if theirs is not None:
        raise InputError(
            f"--out {out} holds a {theirs} that is not of a run; expected a new folder, or the run "
            "to go on with."
        )


def check_base_folder(out: str) -> None:
    """Refuse to replace a model that `base` has not made: its own has settings beside it."""
    theirs = _foreign(out, {"text", "from_gguf"}, is_model=True)
    if theirs is not None:
        raise InputError(
            f"--out {out} holds a {theirs} and is no earlier output of this command; expected a "
            "new folder."
        )


def _foreign(out: str, keys: set[str], *, is_model: bool) -> str | None:
    """Name of the file that another command wrote; None in a folder that is new or our own.

    Our own has settings with these `keys`, and where its output is a model a config.json beside.
    """
    settings = storage.join(out, configs.RESOLVED_NAME)
    has_settings = storage.exists(settings)
    is_own = has_settings and keys <= configs.load_yaml(settings).keys()
    if not (is_own and is_model) and storage.exists(storage.join(out, CONFIG)):
        return CONFIG
    return configs.RESOLVED_NAME if has_settings and not is_own else None
