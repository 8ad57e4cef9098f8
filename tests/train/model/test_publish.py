"""Two exports to one place that no lock reaches: nothing is a model there that is of both."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from apps.common.errors import InputError
from apps.common.files import storage
from apps.train.model.publish import publish

MODELS = {
    "ours": ("lineage.json", "model.safetensors", "tokenizer.json", "config.json"),
    "theirs": (
        "lineage.json",
        "model-00001.safetensors",
        "model.safetensors",
        "tokenizer.json",
        "config.json",
    ),
}


def made(folder: Path, whose: str) -> str:
    folder.mkdir(exist_ok=True)
    for name in MODELS[whose]:
        (folder / name).write_text(f"{whose} {name}")
    return str(folder)


def holds(out: str) -> dict[str, str]:
    return {name: storage.read_bytes(f"{out}/{name}").decode() for name in storage.list_dir(out)}


@pytest.mark.parametrize("at", [*MODELS["ours"], ""])
@pytest.mark.parametrize("is_on_its_way", [True, False])
def test_two_exports_to_one_place_leave_one_model_or_none(
    at: str, is_on_its_way: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's begins and ends before one of our files, or while that is on its way."""
    out = str(tmp_path / "volume")
    os.mkdir(out)
    monkeypatch.setattr("os.path.ismount", lambda path: str(path) == out)
    ours, theirs = made(tmp_path / "ours", "ours"), made(tmp_path / "theirs", "theirs")
    atomic, met = storage.atomic_file, list[str]()

    @contextlib.contextmanager
    def interrupted(uri: str) -> Iterator[IO[bytes]]:
        meets = not met and uri == f"{out}/{at}"
        met.extend([uri] * meets)
        if meets and not is_on_its_way:
            publish(theirs, out)
        with atomic(uri) as target:
            if meets and is_on_its_way:
                publish(theirs, out)
            yield target

    monkeypatch.setattr(storage, "atomic_file", interrupted)
    try:
        publish(ours, out)
    except InputError as error:
        assert "Another export has written to" in str(error)
    if "config.json" in storage.list_dir(out):
        assert len({text.split()[0] for text in holds(out).values()}) == 1
        assert sorted(holds(out)) in [sorted(names) for names in MODELS.values()]
    publish(ours, out)
    assert sorted(holds(out)) == sorted(MODELS["ours"])
