"""Packed rows: what is written is read back, by any index; damage is named."""

import numpy as np
import pytest

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
