"""Dumps in and conversations out through a real S3 server and a Google Cloud Storage server."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gcsfs
import pytest

from apps.common.command.events import Reporter
from apps.common.command.runtime import free_port
from apps.common.errors import CriaError
from apps.common.files import storage
from apps.data import clean
from apps.data.config import CleanConfig
from tests.data import corpus
from tests.data.commands import rows_of, run_clean, write_dump

pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # gcsfs


@pytest.fixture(scope="module")
def s3_bucket(s3: Any) -> str:
    s3.create_bucket(Bucket="chats")
    return "s3://chats"


@pytest.fixture(scope="module")
def gs_bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [str(Path(sys.executable).with_name("gcp-storage-emulator")), "start", "--in-memory"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--default-bucket", "chats"]
    folder = tmp_path_factory.mktemp("gcs")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=folder, **quiet)  # pyright: ignore
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        gcsfs.GCSFileSystem.clear_instance_cache()
        _wait_for(f"{url}/storage/v1/b/chats")
        yield "gs://chats"
    gcsfs.GCSFileSystem.clear_instance_cache()
    server.terminate()
    server.wait()


def _wait_for(url: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(url).close()
            return
        except urllib.error.URLError:
            time.sleep(0.05)
    raise TimeoutError(url)


@pytest.fixture(scope="module", params=["s3", "gs"])
def bucket(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"{request.param}_bucket")


def test_a_bucket_is_as_good_as_a_disk(bucket: str, tmp_path: Path) -> None:
    dump = write_dump(tmp_path / "dump.json", list(corpus.conversations(150, seed=4)))
    storage.write_atomic(f"{bucket}/in/dump.json", dump.read_bytes())
    config = CleanConfig(inputs=(f"{bucket}/in/*.json",), out=f"{bucket}/out", unit_mb=1)
    resolved, files = clean.prepare(config)
    assert files.files == (f"{bucket}/in/dump.json",)
    clean.run(resolved, files, Reporter("json"))
    run_clean(tmp_path / "out", dump, unit_mb=1)
    assert len(rows_of(tmp_path / "out")) > 100
    for name in ("part-00000.parquet", "ledger.json"):
        there = storage.read_bytes(f"{bucket}/out/{name}")
        assert there == (tmp_path / "out" / name).read_bytes()
    assert storage.list_dir(f"{bucket}/out/_work") == []
    assert clean.finished(resolved, files, Reporter("json"))


def test_a_bucket_that_is_gone_is_one_sentence(bucket: str) -> None:
    scheme = bucket.split("//")[0]
    for name in ("x.json", "*.json", ""):
        with pytest.raises(CriaError, match="names no file"):
            clean.prepare(CleanConfig(inputs=(f"{scheme}//gone/{name}",), out=f"{bucket}/out"))
