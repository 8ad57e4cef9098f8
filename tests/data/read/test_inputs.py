"""Which files inputs name: a path, a folder, a glob, an archive, a folder that `clean` wrote."""

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from pathlib import Path

import orjson
import pytest
import zstandard

from apps.common.errors import InputError, NotFoundError
from apps.common.files import storage
from apps.data.read import index, inputs
from apps.data.read.reader import Reading
from tests.data.commands import rows_of, run_clean
from tests.data.read.reading import RECORDS


def test_a_wrong_path_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="names no file; expected"):
        run_clean(tmp_path / "out", tmp_path / "nothing.json")


def test_a_file_of_another_kind_is_refused_by_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_bytes(b'[{"title": "x"}, {"title": "y"}]')
    with pytest.raises(
        InputError, match=r"first record holds title \(text\); expected fields such"
    ):
        run_clean(tmp_path / "out", tmp_path / "notes.json")


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        data = orjson.dumps(RECORDS)
        info = tarfile.TarInfo("dump.json")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _office() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/worksheets/sheet1.xml", "<worksheet/>")
    return out.getvalue()


OTHERS = {
    "dump.json.bz2": (bz2.compress(orjson.dumps(RECORDS)), "compressed by bzip2"),
    "dump.json.xz": (lzma.compress(orjson.dumps(RECORDS)), "compressed by xz"),
    "dump.tar": (_tar(), "a tar archive"),
    "dump.tgz": (gzip.compress(_tar()), "a tar archive"),
    "dump.tar.zst": (zstandard.compress(_tar()), "a tar archive"),
    "dump.pkl": (pickle.dumps(RECORDS), "a Python pickle"),
    "dump.db": (b"SQLite format 3\0" + bytes(100), "an SQLite database"),
    "dump.xlsx": (_office(), "an Office file"),
    "chat.html": (b"\n<!DOCTYPE html><html>", "a web page; name the JSON"),
    "noise": (bytes(range(256)) * 40, "no text; expected JSON"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_that_is_no_dump_is_called_what_it_is(name: str, tmp_path: Path) -> None:
    data, what = OTHERS[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=what):
        run_clean(tmp_path / "out", tmp_path / name)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_what_is_no_dump_is_left_out_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "dumps"
    folder.mkdir()
    for name, (data, _) in OTHERS.items():
        if name != "noise":
            (folder / name).write_bytes(data)
    (folder / "dump.json").write_bytes(orjson.dumps(RECORDS))
    ledger = run_clean(tmp_path / "out", folder, profile="none")
    assert ledger["records"]["kept"] == ledger["records"]["input"] == len(RECORDS)
    lineage = orjson.loads((tmp_path / "out" / "lineage.json").read_bytes())
    assert len(lineage["skipped"]) == len(OTHERS)  # two members of the spreadsheet


def test_folders_and_globs_name_their_files(tmp_path: Path) -> None:
    folder = tmp_path / "dumps"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.json").write_bytes(orjson.dumps(RECORDS[i * 10 : i * 10 + 10]))
    run_clean(tmp_path / "a", folder)
    run_clean(tmp_path / "b", folder / "*.json")
    assert len(rows_of(tmp_path / "a")) == 30
    assert [r["id"] for r in rows_of(tmp_path / "a")] == [r["id"] for r in rows_of(tmp_path / "b")]


def test_a_clean_folder_is_read_by_its_shards_alone(tmp_path: Path) -> None:
    dump = tmp_path / "dump.json"
    dump.write_bytes(orjson.dumps(RECORDS))
    run_clean(tmp_path / "once", dump, profile="none")
    ledger = run_clean(tmp_path / "twice", tmp_path / "once", profile="none")
    assert ledger["records"]["kept"] == ledger["records"]["input"] == len(RECORDS)


def test_what_is_left_out_of_a_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "dumps"
    (folder / "_work").mkdir(parents=True)
    for name in ("a.json", "_b.json", "_work/c.json", ".d.json"):
        (folder / name).write_bytes(orjson.dumps(RECORDS[:3]))
    run_clean(tmp_path / "out", folder)
    assert len(rows_of(tmp_path / "out")) == 3
    lineage = orjson.loads((tmp_path / "out" / "lineage.json").read_bytes())
    assert [uri.rsplit("/", 1)[1] for uri in lineage["skipped"]] == ["_b.json"]
    run_clean(tmp_path / "named", folder / "_b.json")
    run_clean(tmp_path / "glob", folder / "_*.json")
    assert len(rows_of(tmp_path / "named")) == len(rows_of(tmp_path / "glob")) == 3


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each listing is a request, where a bucket holds the folder."""
    (tmp_path / "dumps" / "a" / "b").mkdir(parents=True)
    for name in ("x.json", "a/y.json", "a/b/z.json"):
        (tmp_path / "dumps" / name).write_bytes(orjson.dumps(RECORDS[:1]))
    listed: list[str] = []
    list_dir = storage.list_dir
    monkeypatch.setattr(storage, "list_dir", lambda uri: listed.append(uri) or list_dir(uri))
    assert len(inputs.find((str(tmp_path / "dumps"),)).files) == 3
    assert [uri.rsplit("/", 1)[1] for uri in listed] == ["dumps", "a", "b"]


def test_a_glob_that_names_folders_names_what_is_in_them(tmp_path: Path) -> None:
    for i, name in enumerate(("a", "b")):
        (tmp_path / "dumps" / name).mkdir(parents=True)
        (tmp_path / "dumps" / name / "d.json").write_bytes(orjson.dumps(RECORDS[i : i + 1]))
    (tmp_path / "dumps" / "c.json").write_bytes(orjson.dumps(RECORDS[2:4]))
    run_clean(tmp_path / "out", tmp_path / "dumps" / "*")
    assert len(rows_of(tmp_path / "out")) == 4


def test_a_folder_may_be_named_like_the_place_of_a_member(tmp_path: Path) -> None:
    folder = tmp_path / "wow!" / "a b#%20[1]"
    folder.mkdir(parents=True)
    (folder / "a.json").write_bytes(orjson.dumps(RECORDS[:3]))
    with zipfile.ZipFile(folder / "b.zip", "w") as archive:
        archive.writestr("oh!/c.json", orjson.dumps(RECORDS[3:7]))
    ledger = run_clean(tmp_path / "out", tmp_path / "wow!", profile="none")
    assert ledger["records"]["kept"] == ledger["records"]["input"] == 7
    ledger = run_clean(tmp_path / "one", folder / "a.json", profile="none")
    assert ledger["records"]["kept"] == 3


def test_an_archive_is_asked_for_once_whatever_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "dumps.zip", "w") as archive:
        for i in range(5):
            archive.writestr(f"{i}.json", orjson.dumps(RECORDS[i : i + 1]))
    files = inputs.find((str(tmp_path / "dumps.zip"),)).files
    asked: list[str] = []
    monkeypatch.setattr(storage, "exists", lambda uri: bool(asked.append(uri)) or True)
    units = index.units(files, 1 << 20, Reading())
    assert [unit.args.uri for unit in units] == list(files)
    assert asked == [str(tmp_path / "dumps.zip")]


def test_members_that_are_left_out_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "dumps.zip", "w") as archive:
        for name in ("a.json", "_b.json", "_c/d.json", "__MACOSX/a.json", ".e.json", "f.html"):
            archive.writestr(name, orjson.dumps(RECORDS[:1]))
    at = f"{tmp_path}/dumps.zip!/"
    for given in (f"{tmp_path}/dumps.zip", f"{tmp_path}"):
        found = inputs.find((given,))
        assert found.files == (f"{at}a.json",)
        assert set(found.skipped) == {f"{at}{name}" for name in ("_b.json", "_c/d.json", "f.html")}
