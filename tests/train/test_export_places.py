"""Where an export goes: what it replaces, what it leaves alone, and a hub."""

import os
import socket
import time
from pathlib import Path

import pytest

from apps.common.command.cli import run
from apps.common.errors import InputError
from apps.common.files import storage
from apps.train.__main__ import COMMANDS
from tests.train.exports import exported, loaded, refused
from tests.train.hub import serving


@pytest.fixture
def hub(monkeypatch):
    with serving(token="right") as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield served


def test_only_an_earlier_export_is_replaced(full_run, small_base, tmp_path, capsys) -> None:
    """Not a folder of one's own, not the run, not the model that it resumes from."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").write_text("years of work")
    for kept in (tmp_path / "home", Path(full_run.out), small_base):
        before = sorted(kept.rglob("*"))
        assert run("apps.train", COMMANDS, ["export", full_run.out, "--out", str(kept)]) == 2
        assert "is no earlier export; expected a new or an empty folder" in capsys.readouterr().err
        assert sorted(kept.rglob("*")) == before


def test_an_export_leaves_nothing_beside_it(full_run, tmp_path) -> None:
    """Nor what one that was killed has left: the next one takes its place."""
    for kind in (f"{socket.gethostname()}.partial", "gone-machine.partial", "old"):
        (tmp_path / f".model.{kind}").mkdir()
        (tmp_path / f".model.{kind}/model.safetensors").write_bytes(b"half")
    days_ago_s = time.time() - 2 * 86400
    for left in (tmp_path / ".model.gone-machine.partial").rglob("*"):
        os.utime(left, (days_ago_s, days_ago_s))
    os.utime(tmp_path / ".model.gone-machine.partial", (days_ago_s, days_ago_s))
    exported(full_run, tmp_path / "model")
    (tmp_path / "link").symlink_to("model")
    folder = exported(full_run, tmp_path / "link")
    assert folder.is_symlink() and loaded(folder) is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "model"]


def test_an_export_leaves_alone_what_another_machine_makes(full_run, tmp_path) -> None:
    """On a disk that both share, where no lock of this machine's reaches."""
    theirs = tmp_path / ".model.other-machine.partial"
    theirs.mkdir()
    (theirs / "model.safetensors").write_bytes(b"half")
    assert loaded(exported(full_run, tmp_path / "model")) is not None
    assert (theirs / "model.safetensors").read_bytes() == b"half"


def test_a_disk_that_is_mounted_at_out_is_written_to(full_run, tmp_path, monkeypatch) -> None:
    """As a container's volume is, which no other folder can take the place of."""
    out = tmp_path / "volume"
    out.mkdir()
    (out / f".volume.{socket.gethostname()}.partial").mkdir()
    inode = out.stat().st_ino
    monkeypatch.setattr("os.path.ismount", lambda path: str(path) == str(out))
    (tmp_path / "link").symlink_to(out)
    for given in (out, tmp_path / "link", out):
        exported(full_run, given)
        assert loaded(out) is not None and out.stat().st_ino == inode
        assert not [path for path in out.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("place", ["bucket", "mounted disk"])
def test_an_export_that_is_killed_half_way_is_taken_for_no_model(
    full_run, tmp_path, monkeypatch, place
) -> None:
    """Where files are written one by one, over those of an earlier export."""
    out = f"memory://{tmp_path.name}" if place == "bucket" else str(tmp_path / "volume")
    monkeypatch.setattr("os.path.ismount", lambda path: str(path) == out)
    argv = ["export", full_run.out, "--out", out]
    assert run("apps.train", COMMANDS, argv) == 0
    storage.write_json(f"{out}/model-00001.safetensors", {})
    atomic = storage.atomic_file

    def cut(uri: str, *rest: object):
        if not uri.startswith(f"{out}/"):
            return atomic(uri, *rest)
        if uri.endswith(("/model.safetensors", "/tokenizer.json")):
            listed = set(storage.list_dir(out))
            assert "config.json" not in listed and "model-00001.safetensors" not in listed
        if uri.endswith("/tokenizer.json"):
            raise InputError("The machine is gone.")
        return atomic(uri, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "atomic_file", cut)
        assert run("apps.train", COMMANDS, argv) == 2
    assert "config.json" not in storage.list_dir(out)
    assert run("apps.train", COMMANDS, argv) == 0
    assert "config.json" in storage.list_dir(out)


def test_push_uploads_the_folder_s_files(full_run, tmp_path, hub, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "right")
    folder = exported(full_run, tmp_path / "model", "--push", "org/tuned")
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert hub.repositories == {"org/tuned": written}


def test_a_hub_that_does_not_answer_is_a_sentence(
    full_run, tmp_path, hub, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("HF_TOKEN", "right")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    argv = ["export", full_run.out, "--out", str(tmp_path / "model"), "--push", "org/tuned"]
    said = refused(argv, capsys)
    assert "Pushing to org/tuned failed" in said and "The folder itself was written" in said


def test_a_push_that_is_refused_is_a_sentence_and_the_folder_stays(
    full_run, tmp_path, hub, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("HF_TOKEN", "wrong")
    argv = ["export", full_run.out, "--out", str(tmp_path / "model"), "--push", "org/tuned"]
    said = refused(argv, capsys)
    assert "Pushing to org/tuned failed" in said and "hf auth login" in said
    assert len(said.strip().splitlines()) == 1
    assert loaded(tmp_path / "model") is not None
