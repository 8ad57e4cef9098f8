"""Lines that are added in a bucket are read as of one file."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from apps.common.files import parts, storage


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"parts-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=name)
    return f"s3://{name}/eval"


def test_on_a_disk_it_is_one_file(tmp_path: Path) -> None:
    uri = str(tmp_path / "raw.jsonl")
    assert parts.read(uri) is None
    parts.append(uri, b"1\n2\n")
    parts.append(uri, b"3\n")
    assert parts.read(uri) == Path(uri).read_bytes() == b"1\n2\n3\n"


def test_threads_that_append_at_once_leave_whole_lines_alone(tmp_path: Path) -> None:
    uri = str(tmp_path / "answers.jsonl")
    line = b'{"text":"' + b"x" * 20_000 + b'"}'
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: parts.append(uri, line), range(320)))
    assert Path(uri).read_bytes() == (line + b"\n") * 320


def test_lines_of_killed_writers_are_passed_over_wherever_they_stand(tmp_path: Path) -> None:
    uri = str(tmp_path / "answers.jsonl")
    assert parts.records(uri) == []
    Path(uri).write_bytes(b'{"a": 1}\n{"a": 2, "te\n\n{"a": "\xe2\x80\n{"a": "\xc2\x85"}\n{"a"')
    assert parts.records(uri) == [{"a": 1}, {"a": "\x85"}]


def test_parts_are_read_in_the_order_of_their_writing(bucket: str) -> None:
    uri = f"{bucket}/raw.jsonl"
    assert parts.read(uri) is None
    for number in range(12):
        parts.append(uri, b"%d\n" % number)
    lines = b"".join(b"%d\n" % number for number in range(12))
    assert parts.read(uri) == lines
    storage.write_atomic(f"{bucket}/whole", lines)
    assert parts.digest(uri) == storage.digest_file(f"{bucket}/whole")


def test_a_folder_lists_a_file_in_parts_under_its_own_name(bucket: str, tmp_path: Path) -> None:
    for folder in (bucket, str(tmp_path)):
        storage.write_atomic(f"{folder}/b.json", b"{}")
        parts.append(f"{folder}/a.jsonl", b"1\n")
        parts.append(f"{folder}/a.jsonl", b"2\n")
        assert parts.names(folder) == ["a.jsonl", "b.json"]


def test_what_replaces_a_file_replaces_its_parts(bucket: str, tmp_path: Path) -> None:
    for folder in (bucket, str(tmp_path)):
        parts.append(f"{folder}/a.jsonl", b"1\n")
        parts.replace(f"{folder}/a.jsonl", b"2\n")
        assert parts.read(f"{folder}/a.jsonl") == b"2\n"
        parts.append(f"{folder}/a.jsonl", b"3")
        assert parts.read(f"{folder}/a.jsonl") == b"2\n3\n"


def test_a_file_that_was_copied_to_a_bucket_is_read_before_its_parts(bucket: str) -> None:
    uri = f"{bucket}/raw.jsonl"
    storage.write_atomic(uri, b"1\n")
    parts.append(uri, b"2\n")
    assert parts.read(uri) == b"1\n2\n"
