"""Packed rows in memory, and how rows become the tensors of a micro-batch.

Legend: B rows of a micro-batch, T tokens a row.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from apps.common.packs import Split
from apps.train.batches.order import NO_ROW
from apps.train.model.attention import Packing, boundaries
from apps.train.model.loss import next_token_labels


class Rows(Protocol):
    """What training needs of packed rows."""

    @property
    def row_tokens(self) -> int: ...

    @property
    def pad_id(self) -> int: ...

    def __len__(self) -> int: ...

    @property
    def supervised(self) -> np.ndarray:
        """Tokens with loss of each row."""
        ...

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """ids (T,), loss mask (T,) and the lengths of the conversations in the row."""
        ...

    def read_ahead(self, indices: np.ndarray) -> None:
        """These rows will be asked for soon; returns at once."""
        ...


@dataclass(frozen=True)
class ArrayRows:
    """Rows held as arrays: ids and loss_mask (R, T), lengths as one list a row."""

    ids: np.ndarray
    loss_mask: np.ndarray
    lengths: list[list[int]]
    pad_id: int = 0
    supervised: np.ndarray = field(init=False)
    """tokens with loss of each row; a conversation's first token has no predecessor"""

    def __post_init__(self) -> None:
        counts = self.loss_mask.sum(1)
        for index, lengths in enumerate(self.lengths):
            counts[index] -= self.loss_mask[index, _starts(lengths)].sum()
        object.__setattr__(self, "supervised", counts)

    @property
    def row_tokens(self) -> int:
        return self.ids.shape[1]

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
        return self.ids[index], self.loss_mask[index], self.lengths[index]

    def read_ahead(self, indices: np.ndarray) -> None:
        """They are in memory."""


_READ_ROWS = 1024


class PackRows:
    """Rows of one split of a pack, read when they are asked for."""

    def __init__(self, split: Split, pad_id: int) -> None:
        self._split = split
        self.row_tokens, self.pad_id = split.max_length, pad_id
        self.supervised = self._count()

    def __len__(self) -> int:
        return len(self._split)

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
        rows = self._split.rows([index])
        return rows.input_ids[0], rows.loss_mask[0], rows.lengths[0].tolist()

    def read_ahead(self, indices: np.ndarray) -> None:
        self._split.read_ahead(indices)

    def _count(self) -> np.ndarray:
        counts = np.zeros(len(self), dtype=np.int64)
        for start in range(0, len(self), _READ_ROWS):
            indices = np.arange(start, min(start + _READ_ROWS, len(self)))
            rows = self._split.rows(indices)
            part = ArrayRows(rows.input_ids, rows.loss_mask, [n.tolist() for n in rows.lengths])
            counts[indices] = part.supervised
        return counts


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Tensors of one forward pass."""

    ids_BT: torch.Tensor
    labels_BT: torch.Tensor
    position_ids_BT: torch.Tensor
    packing: Packing
    num_tokens: int
    """real tokens: the tails and the rows without loss are not counted"""
    squared_tokens: int
    """sum of the squared conversation lengths, for the true cost of attention"""


def micro_batch(
    rows: Rows, indices: np.ndarray, device: torch.device, *, with_mask: bool = False
) -> MicroBatch:
    """Assemble the rows of one micro-batch; NO_ROW becomes a row of padding without loss.

    `with_mask`: attention needs a mask on a GPU too, see attention.py.
    """
    T = rows.row_tokens
    ids = np.full((len(indices), T), rows.pad_id, dtype=np.int64)
    mask = np.zeros((len(indices), T), dtype=bool)
    lengths: list[list[int]] = []
    for slot, index in enumerate(indices):
        if index == NO_ROW:
            lengths.append([])
            continue
        ids[slot], mask[slot], row_lengths = rows.row(int(index))
        mask[slot, _starts(row_lengths)] = False
        lengths.append(list(row_lengths))
    edges = boundaries(lengths, T, device, with_mask=with_mask)
    ids_BT = torch.from_numpy(ids)
    labels_BT = next_token_labels(ids_BT, torch.from_numpy(mask))
    return MicroBatch(
        ids_BT=ids_BT.to(device, non_blocking=True),
        labels_BT=labels_BT.to(device, non_blocking=True),
        position_ids_BT=edges.position_ids_BT,
        packing=edges.packing,
        num_tokens=sum(map(sum, lengths)),
        squared_tokens=sum(n * n for row in lengths for n in row),
    )


def _starts(lengths: list[int]) -> np.ndarray:
    return np.cumsum([0, *lengths[:-1]]) if lengths else np.zeros(0, dtype=np.int64)
