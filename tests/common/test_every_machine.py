"""What a machine says of folders that it shares with another, or does not."""

from pathlib import Path
from typing import Any

import pytest

from apps.common.command.every_machine import Asked, fault_here, looks_like
from apps.common.errors import StorageError
from apps.common.files import storage


def test_a_folder_that_is_shared_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "part.parquet").write_bytes(b"123")
    reads = {"--data": (str(tmp_path), looks_like(str(tmp_path)))}
    probe = str(tmp_path / "part.parquet")
    assert fault_here(Asked(reads=reads, out=str(tmp_path), probe=probe)) is None


def test_a_folder_without_the_probe_is_another(tmp_path: Path) -> None:
    asked = Asked(reads={}, out="/out", probe=str(tmp_path / "none"))
    assert (fault_here(asked) or "").startswith("--out /out is another folder there; give a bucket")


@pytest.mark.parametrize("change", ["gone", "longer", "more"])
def test_inputs_that_differ_are_a_fault(change: str, tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "data" / "dump.json"
    data.mkdir()
    file.write_text("[]")
    reads = {uri: (uri, looks_like(uri)) for uri in (str(data), str(file), f"{data}/*.json")}
    if change == "gone":
        file.unlink()
    elif change == "longer":
        file.write_text("[1]")
    else:
        (data / "another.json").write_text("[]")
    assert "is not there, or is another" in (
        fault_here(Asked(reads=reads, out="", probe="/")) or ""
    )


def test_files_of_a_bucket_are_told_apart_by_their_sizes(s3: Any) -> None:
    s3.create_bucket(Bucket="looks")
    s3.put_object(Bucket="looks", Key="dumps/a.json", Body=b"[]")
    before = looks_like("s3://looks/dumps/*.json")
    assert before and looks_like("s3://looks/none/*.json") == ""
    s3.put_object(Bucket="looks", Key="dumps/a.json", Body=b"[1]")
    assert looks_like("s3://looks/dumps/*.json") != before


def test_a_bucket_that_may_not_be_read_is_a_sentence(monkeypatch) -> None:
    def denied(uri: str) -> bool:
        raise StorageError(f"Access to {uri} was denied (403); check its permissions.")

    monkeypatch.setattr(storage, "exists", denied)  # no bucket here refuses anybody
    fault = fault_here(Asked(reads={}, out="s3://some-bucket/out", probe=None)) or ""
    assert "s3://some-bucket/out" in fault and "credentials of the bucket" in fault
