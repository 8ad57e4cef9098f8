import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from apps.common.errors import InputError, NotFoundError, StorageError, UnusablePathError
from apps.common.files import storage


def test_an_interrupted_write_leaves_the_old_file_and_no_scraps(tmp_path):
    path = str(tmp_path / "a" / "b.json")
    storage.write_atomic(path, b"old")
    with pytest.raises(KeyboardInterrupt), storage.atomic_file(path) as handle:
        handle.write(b"new")
        raise KeyboardInterrupt
    assert storage.read_bytes(path) == b"old"
    assert os.listdir(tmp_path / "a") == ["b.json"]


def test_a_file_that_is_written_again_keeps_its_permissions(tmp_path):
    path, umask = tmp_path / "a", os.umask(0o022)
    try:
        storage.write_atomic(str(path), b"1")
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        for mode in (0o600, 0o664, 0o444):
            path.chmod(mode)
            storage.write_atomic(str(path), b"2")
            assert stat.S_IMODE(path.stat().st_mode) == mode
        storage.write_atomic(str(tmp_path / "secret"), b"3", new_mode=0o600)
        assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    finally:
        os.umask(umask)


def test_a_folder_is_finished_only_by_its_marker(tmp_path):
    folder = str(tmp_path / "out")
    storage.write_json(storage.join(folder, "part.json"), {})
    assert storage.read_commit(folder) is None
    storage.commit(folder, {"parts": 1})
    assert storage.read_commit(folder) == {"parts": 1}
    (tmp_path / "out" / storage.COMMIT_NAME).write_bytes(b'{"par')
    assert storage.read_commit(folder) is None


def test_append_survives_a_torn_last_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":')
    storage.append_lines(str(path), b'{"a":2}\n')
    assert path.read_bytes().splitlines() == [b'{"a":1}', b'{"a":', b'{"a":2}']


def test_join_keeps_protocols_and_roots():
    assert storage.join("s3://bucket/run/", "/checkpoints/", "step-1") == (
        "s3://bucket/run/checkpoints/step-1"
    )
    assert storage.join("/", "a") == "/a"


def test_missing_files_and_unknown_protocols_are_bad_input(tmp_path):
    with pytest.raises(NotFoundError, match="does not exist"):
        storage.read_bytes(str(tmp_path / "none"))
    with pytest.raises(InputError, match="expected a local path"):
        storage.exists("gopher://x/y")


def test_a_path_of_the_wrong_kind_or_kept_from_us_is_bad_input(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UnusablePathError, match="it is a folder, and a file is expected") as error:
        storage.read_bytes(str(tmp_path))
    assert error.value.exit_code == 2
    for wrong in ("file/x", "file/x/y"):
        with pytest.raises(UnusablePathError, match="is a file, and a folder is expected"):
            storage.write_atomic(str(tmp_path / wrong), b"1")
    with pytest.raises(UnusablePathError, match="it is a folder"):
        storage.write_atomic(str(tmp_path), b"1")
    assert os.listdir(tmp_path) == ["file"]

    def kept(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", kept)
    with pytest.raises(UnusablePathError, match="x may not be opened by this user"):
        storage.write_atomic(str(tmp_path / "x"), b"1")
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_a_sentence(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space is left"):
        storage.write_atomic(str(tmp_path / "x"), b"1")
    assert os.listdir(tmp_path) == []


def test_list_dir_is_sorted_and_empty_for_a_missing_folder(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
    assert storage.list_dir(str(tmp_path)) == ["a", "b"]
    assert storage.list_dir(str(tmp_path / "none")) == []


def test_several_may_remove_one_folder_at_once(tmp_path):
    for i in range(400):
        (tmp_path / "d" / f"{i % 20}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / f"{i % 20}" / f"{i}").touch()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(storage.remove_tree, [str(tmp_path / "d")] * 4))
    assert not (tmp_path / "d").exists()


def test_remove_tree_forgives_what_is_gone(tmp_path):
    (tmp_path / "d").mkdir()
    storage.remove_tree(str(tmp_path / "d"))
    storage.remove_tree(str(tmp_path / "d"))
    assert storage.list_dir(str(tmp_path)) == []


def test_a_files_version_is_of_what_is_written_and_of_nothing_else(tmp_path):
    path = tmp_path / "a"
    storage.write_atomic(str(path), b"1")
    first = storage.version(str(path))
    path.chmod(0o600)
    os.link(path, tmp_path / "backup")
    assert storage.version(f"file://{path}") == first
    storage.write_atomic(str(path), b"22")
    assert storage.version(str(path)) != first
