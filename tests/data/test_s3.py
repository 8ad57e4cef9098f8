"""Dumps in and conversations out through a real S3 server."""

from pathlib import Path
from typing import Any

import pytest

from apps.common import storage
from apps.common.errors import CriaError
from apps.common.events import Reporter
from apps.data import clean
from apps.data.config import CleanConfig
from benchmarks import corpus
from tests.data.test_clean import rows_of, run_clean, write_dump


@pytest.fixture(scope="module")
def bucket(s3: Any) -> str:
    s3.create_bucket(Bucket="chats")
    return "s3://chats"


def test_a_bucket_is_as_good_as_a_disk(bucket: str, s3: Any, tmp_path: Path) -> None:
    dump = write_dump(tmp_path / "dump.json", list(corpus.conversations(150, seed=4)))
    s3.upload_file(str(dump), "chats", "in/dump.json")
    config = CleanConfig(inputs=(f"{bucket}/in/*.json",), out=f"{bucket}/out", unit_mb=1)
    resolved, files = clean.prepare(config)
    assert files == [f"{bucket}/in/dump.json"]
    clean.run(resolved, files, Reporter("json"))
    run_clean(tmp_path / "out", dump, unit_mb=1)
    assert len(rows_of(tmp_path / "out")) > 100
    for name in ("part-00000.parquet", "ledger.json"):
        there = storage.read_bytes(f"{bucket}/out/{name}")
        assert there == (tmp_path / "out" / name).read_bytes()
    assert storage.list_dir(f"{bucket}/out/_work") == []
    assert clean.finished(resolved, files, Reporter("json"))


def test_a_bucket_that_is_gone_is_one_sentence(bucket: str) -> None:
    with pytest.raises(CriaError, match="names no file"):
        clean.prepare(CleanConfig(inputs=("s3://gone/x.json",), out=f"{bucket}/out"))
