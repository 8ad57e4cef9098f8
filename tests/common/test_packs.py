"""Packed rows: what is written is read back, by any index; damage is named."""

import os
import threading
from typing import Any

import numpy as np
import pytest
from s3fs.core import S3File

from apps.common import packs
from apps.common.errors import CorruptError, NotFoundError
from apps.common.files import storage
from apps.common.text.templates import NAMED

VICUNA = NAMED["vicuna-v1.1"]


def some_rows(num_rows: int, max_length: int = 16, seed: int = 0) -> packs.Rows:
    rng = np.random.default_rng(seed)
    segments = []
    for _ in range(num_rows):
        sizes = rng.integers(1, max_length // 2, 2)
        segments.append(
            [(rng.integers(3, 99, n).astype(np.int32), rng.random(n) < 0.5) for n in sizes]
        )
    return packs.fill_rows(segments, max_length, pad_id=0)


@pytest.fixture
def pack(tmp_path) -> tuple[str, packs.Rows]:
    rows = some_rows(200)
    splits = {"train": rows, "val": some_rows(3, seed=1)}
    packs.write_pack(str(tmp_path / "pack"), splits, VICUNA, tokenizer_digest="t")
    return str(tmp_path / "pack"), rows


def test_rows_come_back_by_any_index(pack):
    uri, rows = pack
    opened = packs.open_pack(uri)
    opened.verify()
    train = opened.split("train")
    assert (len(train), len(opened.split("val"))) == (200, 3)
    indices = np.random.default_rng(2).permutation(200)
    found = train.rows(indices)
    assert (found.input_ids == rows.input_ids[indices]).all()
    assert (found.loss_mask == rows.loss_mask[indices]).all()
    for index, lengths in zip(indices, found.lengths, strict=True):
        assert lengths.tolist() == rows.lengths[index].tolist()


def test_pack_json_counts_tokens_and_keeps_the_template(pack):
    uri, rows = pack
    info = packs.open_pack(uri).info
    train = info.splits["train"]
    assert info.template == VICUNA
    assert train.num_tokens == sum(int(x.sum()) for x in rows.lengths)
    assert train.num_supervised_tokens == int(rows.loss_mask.sum())
    assert train.fill == pytest.approx(train.num_tokens / (200 * 16))


def test_equal_rows_give_equal_bytes(tmp_path, pack):
    _, rows = pack
    first = packs.write_shard(str(tmp_path), "a/00000.parquet", rows)
    second = packs.write_shard(str(tmp_path / "b"), "a/00000.parquet", rows)
    assert first == second


def test_a_damaged_shard_is_named(pack):
    uri, _ = pack
    shard = storage.join(uri, "train/00000.parquet")
    data = bytearray(storage.read_bytes(shard))
    data[len(data) // 2] ^= 1
    storage.write_atomic(shard, bytes(data))
    with pytest.raises(CorruptError, match=r"train/00000\.parquet has digest"):
        packs.open_pack(uri).verify()
    storage.write_atomic(shard, bytes(data[:-9]))
    with pytest.raises(CorruptError, match="bytes, but"):
        packs.open_pack(uri)


def test_an_unfinished_pack_is_refused(pack, tmp_path):
    uri, _ = pack
    storage.remove_tree(storage.join(uri, storage.COMMIT_NAME))
    with pytest.raises(CorruptError, match="not finished"):
        packs.open_pack(uri)
    with pytest.raises(NotFoundError, match=r"apps\.data pack"):
        packs.open_pack(str(tmp_path))


def test_an_index_outside_the_split_is_an_error(pack):
    with pytest.raises(IndexError, match=r"\[0, 3\)"):
        packs.open_pack(pack[0]).split("val").rows([3])


def open_files(folder: str) -> list[str]:
    """Files under a folder that this process holds open."""
    paths = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    targets = [os.readlink(path) for path in paths if os.path.islink(path)]
    return [target for target in targets if target.startswith(folder)]


def test_no_shard_stays_open(pack) -> None:
    uri, _ = pack
    train = packs.open_pack(uri).split("train")
    train.rows(range(200))
    assert train.largest_id() < 99
    assert open_files(uri) == []


def test_of_a_bucket_only_footers_and_wanted_row_groups_are_read(s3: Any, monkeypatch) -> None:
    s3.create_bucket(Bucket="packs")
    rows = some_rows(640, max_length=512)
    splits = {"train": rows, "val": some_rows(3, 512, seed=1)}
    packs.write_pack("s3://packs/pack", splits, VICUNA, tokenizer_digest="t")
    fetched: list[int] = []
    fetch = S3File._fetch_range

    def counted(file: S3File, start: int, end: int) -> bytes:
        data = fetch(file, start, end)
        fetched.append(len(data))
        return data

    monkeypatch.setattr(S3File, "_fetch_range", counted)
    train = packs.open_pack("s3://packs/pack").split("train")
    fetched.clear()
    found = train.rows([70, 71])
    assert (found.input_ids == rows.input_ids[70:72]).all()
    meta, _ = train._footer(0)
    group = meta.row_group(1)
    wanted = sum(group.column(i).total_compressed_size for i in range(group.num_columns))
    assert meta.num_row_groups == 10
    footer = 64 << 10  # what pyarrow asks for at first
    assert len(fetched) == 2
    assert wanted <= sum(fetched) <= wanted + footer


def test_rows_are_read_ahead_by_a_thread(pack, monkeypatch) -> None:
    uri, rows = pack
    readers: list[str] = []
    from_table = packs.from_table

    def noted(*table: Any) -> packs.Rows:
        readers.append(threading.current_thread().name)
        return from_table(*table)

    monkeypatch.setattr(packs, "from_table", noted)
    train = packs.open_pack(uri).split("train")
    train.read_ahead([130, 3])
    assert train._reader is not None
    train._reader.join()
    found = train.rows([3, 130])
    assert (found.input_ids == rows.input_ids[[3, 130]]).all()
    assert len(readers) == 2 and threading.main_thread().name not in readers


def test_a_row_that_cannot_be_read_ahead_is_told_when_it_is_needed(pack) -> None:
    uri, _ = pack
    train = packs.open_pack(uri).split("train")
    os.remove(f"{uri}/train/00000.parquet")
    train.read_ahead([0])
    with pytest.raises(NotFoundError, match=r"train/00000\.parquet does not exist"):
        train.rows([0])
