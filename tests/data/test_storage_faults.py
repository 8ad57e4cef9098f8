"""A full disk, a bucket that is gone, no credentials: one sentence, and nothing that looks whole.

The disk is full for real: the kernel refuses to let a file of this process grow (RLIMIT_FSIZE).
"""

import contextlib
import hashlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import s3fs

from apps.common.command import cli
from apps.common.command.cli import Command
from apps.common.command.events import Reporter
from apps.common.files import storage
from apps.data import clean, pack
from apps.data.config import CleanConfig, PackConfig
from apps.data.units import run_serially
from tests import made
from tests.data import corpus
from tests.data.commands import write_dump


def serial_clean(config: CleanConfig, reporter: Reporter) -> None:
    clean.run(*clean.prepare(config), reporter)


def serial_pack(config: PackConfig, reporter: Reporter) -> None:
    pack.run_pack(pack.prepare(config), reporter, run_serially)


COMMANDS = {
    "clean": Command(config=CleanConfig, run=serial_clean, help="clean, in this process"),
    "pack": Command(config=PackConfig, run=serial_pack, help="pack, in this process"),
}


@contextlib.contextmanager
def files_end_at(num_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond `num_bytes`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def digests(out: Path) -> dict[str, str]:
    return {
        str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in out.rglob("*.parquet")
    }


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = list(corpus.conversations(150, seed=6))
    return write_dump(tmp_path_factory.mktemp("dump") / "dump.json", records)


@pytest.fixture(scope="module")
def whole(dump: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed `clean` and `pack` leave, in clean/ and pack/."""
    folder = tmp_path_factory.mktemp("whole")
    tokenizer = made.byte_level_folder(folder / "tokenizer")
    for argv in commands(dump, folder, tokenizer).values():
        assert cli.run("apps.data", COMMANDS, argv) == 0
    return folder


def commands(dump: Path, folder: Path, tokenizer: str) -> dict[str, list[str]]:
    packing = ["pack", str(folder / "clean"), "--tokenizer", tokenizer, "--max-length", "256"]
    cleaning = ["clean", str(dump), "--unit-mb", "1"]
    return {
        "clean": [*cleaning, "--out", str(folder / "clean"), "--log-format", "json"],
        "pack": [*packing, "--out", str(folder / "pack"), "--log-format", "json"],
    }


@pytest.mark.parametrize("place", ["first unit", "last shard"])
@pytest.mark.parametrize("name", ["clean", "pack"])
def test_a_full_disk_is_a_sentence_and_the_same_command_goes_on(
    name: str,
    place: str,
    dump: Path,
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shards = {p: p.stat().st_size for p in (whole / name).rglob("*.parquet")}
    room = 3000 if place == "first unit" else max(shards.values()) - 1
    if name == "pack":
        (tmp_path / "clean").symlink_to(whole / "clean")
    argv = commands(dump, tmp_path, str(whole / "tokenizer"))[name]
    with files_end_at(room):
        code = cli.run("apps.data", COMMANDS, argv)
    said = capsys.readouterr().err
    assert (code, len(said.strip().splitlines())) == (1, 1), said
    assert "No space is left" in said and "run again" in said
    out = tmp_path / name
    assert storage.read_commit(str(out)) is None
    assert not list(out.rglob("*.tmp"))
    for left in out.rglob("*.parquet"):
        pq.read_table(left)  # what has its name is whole
    assert cli.run("apps.data", COMMANDS, argv) == 0
    assert digests(out) == digests(whole / name)


def delete_bucket(s3: Any, name: str) -> None:
    for found in s3.list_objects_v2(Bucket=name).get("Contents", []):
        s3.delete_object(Bucket=name, Key=found["Key"])
    s3.delete_bucket(Bucket=name)


def test_a_bucket_that_goes_on_the_way_is_a_sentence(
    s3: Any, dump: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.create_bucket(Bucket="fleeting")

    def lose_bucket(config: CleanConfig, reporter: Reporter) -> None:
        prepared = clean.prepare(config)
        delete_bucket(s3, "fleeting")
        clean.run(*prepared, reporter)

    command = {"clean": Command(config=CleanConfig, run=lose_bucket, help="clean")}
    code = cli.run("apps.data", command, ["clean", str(dump), "--out", "s3://fleeting/out"])
    said = capsys.readouterr().err.strip()
    assert code in (1, 2)
    assert len(said.splitlines()) == 1
    assert "fleeting" in said and "bucket" in said


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("side", ["input", "glob", "output"])
def test_missing_credentials_are_a_sentence(
    side: str,
    s3: Any,
    no_credentials: None,
    dump: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sources = {"input": "s3://locked/dump.json", "glob": "s3://locked/*.json", "output": str(dump)}
    source = sources[side]
    out = "s3://locked/out" if side == "output" else str(tmp_path / "out")
    code = cli.run("apps.data", COMMANDS, ["clean", source, "--out", out])
    said = capsys.readouterr().err.strip()
    assert code in (1, 2)
    assert len(said.splitlines()) == 1
    assert "credentials" in said.lower() and "locked" in said
