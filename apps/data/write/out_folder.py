"""The folder that `clean` writes: empty, or begun or finished by the same settings and inputs.

That of `pack` is empty or from `pack`, too: what lies there beside the shards is removed.
"""

import dataclasses
from typing import TypeVar

from apps.common.errors import ConfigError, InputError, NotFoundError, StorageError
from apps.common.files import config as configs
from apps.common.files import schema, storage
from apps.data.config import CleanConfig
from apps.data.ledger import Ledger
from apps.data.read import inputs
from apps.data.read.inputs import Inputs


def claim(config: CleanConfig) -> None:
    """Write the settings there. Raises InputError where that cannot be, or anything else is."""
    _check(config)
    try:
        configs.write_resolved(config, config.out)
    except (StorageError, NotFoundError) as error:
        raise InputError(
            f"The output folder {config.out} cannot be written; expected one that this user may "
            f"create or write into. {error}"
        ) from error


def _check(config: CleanConfig) -> None:
    there = settings_there(config.out, CleanConfig)
    if there is not None and _same_work(there) != _same_work(config):
        changed = ", ".join(_differences(there, config))
        raise InputError(
            f"--out {config.out} holds a run with other settings ({changed}); name an empty "
            "folder, or remove this one."
        )


T = TypeVar("T")


def settings_there(out: str, kind: type[T]) -> T | None:
    """Those that a command began its output folder with; None where it is empty.

    Raises InputError for a file, and for a folder of anything else.
    """
    names = storage.list_dir(out)
    if all(name.startswith(f"{configs.RESOLVED_NAME}.") for name in names):  # killed as it began
        if storage.exists(out) and not storage.is_dir(out):
            raise InputError(f"--out {out} is a file; expected a folder.")
        return None
    if configs.RESOLVED_NAME not in names:
        raise InputError(
            f"--out {out} is not empty and not from this command; name an empty folder."
        )
    try:
        return configs.load(kind, storage.join(out, configs.RESOLVED_NAME))
    except ConfigError as error:
        raise InputError(
            f"--out {out} holds the output of another command; name an empty folder."
        ) from error


def _same_work(config: CleanConfig) -> CleanConfig:
    named = tuple(storage.absolute(uri) for uri in config.inputs)
    return dataclasses.replace(config, inputs=named, workers=0, out="")  # change no output


def _differences(a: CleanConfig, b: CleanConfig) -> list[str]:
    names: list[str] = []
    for left, right, prefix in ((_same_work(a), _same_work(b), ""), (a.rules, b.rules, "rules.")):
        for field in dataclasses.fields(left):
            if getattr(left, field.name) != getattr(right, field.name) and field.name != "rules":
                names.append(prefix + field.name)
    return names


def committed(config: CleanConfig, files: Inputs) -> Ledger | None:
    """What the run that is finished there counted; None when none is.

    Raises InputError when the inputs are others or changed since.
    """
    marker = storage.read_commit(config.out)
    if marker is None:
        return None
    stamps = {uri: stamp for uri, (_, stamp) in inputs.sizes_and_stamps(files.files).items()}
    if marker["inputs"] != stamps:
        raise InputError(
            f"--out {config.out} was finished with other input files, or they changed since; name "
            "an empty folder, or remove this one."
        )
    return Ledger.from_json(storage.read_json(storage.join(config.out, schema.LEDGER_NAME)))
