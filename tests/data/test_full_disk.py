"""A disk that fills up under the real commands on Ray: a small tmpfs, mounted for the test."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from apps.common.files import storage
from tests import made
from tests.data import corpus
from tests.data.commands import digests, write_dump

pytestmark = pytest.mark.ray


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A folder on a disk of its own, and what gives that disk another size in kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount a disk")
    try:
        yield folder, lambda kb: resize(folder, kb)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(folder: Path, size_kb: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size_kb}k", str(folder)], check=True)


def run(ray_session: Any, *argv: str) -> tuple[int, str]:
    env = {**os.environ, **ray_session.child_env()}
    command = [sys.executable, "-m", "apps.data", *argv, "--workers", "2", "--log-format", "json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    return done.returncode, done.stderr.strip()


def test_clean_and_pack_stop_with_a_sentence_and_go_on_when_there_is_room(
    disk: tuple[Path, Callable[[int], None]], ray_session: Any, tmp_path: Path
) -> None:
    folder, room = disk
    dump = write_dump(tmp_path / "dump.json", list(corpus.conversations(150, seed=6)))
    tokenizer = made.byte_level_folder(tmp_path / "tokenizer")
    cleaning = ["clean", str(dump), "--unit-mb", "1", "--out"]
    packing = ["pack", str(tmp_path / "clean"), "--tokenizer", tokenizer, "--out"]
    for name, argv in (("clean", cleaning), ("pack", packing)):
        assert run(ray_session, *argv, str(tmp_path / name))[0] == 0
        out = folder / name
        room(used_kb(folder) + 400)
        code, said = run(ray_session, *argv, str(out))
        assert (code, len(said.splitlines())) == (1, 1), said
        assert "No space is left" in said
        assert storage.read_commit(str(out)) is None
        for left in out.rglob("*.parquet"):
            pq.read_table(left)  # what has its name is whole
        room(100_000)
        assert run(ray_session, *argv, str(out)) == (0, "")
        assert digests(out) == digests(tmp_path / name)


def used_kb(folder: Path) -> int:
    stats = os.statvfs(folder)
    return (stats.f_blocks - stats.f_bfree) * stats.f_frsize // 1024
