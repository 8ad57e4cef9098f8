"""Which tensors of a model folder fill which parameter, and that none is left over or missing.

    for name, source in sources(folder, config, shapes).items():
        source.rows(first, last)     # of dimension 0, so a rank reads its own share only

Most parameters are one tensor of the same name. The others are looked up as transformers does:

    base model alone   layers.0...                for model.layers.0...
    tied head          lm_head.weight             for model.embed_tokens.weight, if only it is there
    fp8 weights        x.weight, x.weight_scale_inv (one scale a block)
    experts            experts.3.gate_proj.weight, ... for one tensor over all experts
    grown embeddings   fewer rows than the parameter: the others get the mean of those there are

`as_stored` is the inverse for an export.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, cast

import torch
from safetensors import safe_open
from transformers import PretrainedConfig

from apps.common.errors import InputError
from apps.common.files.model_settings import read_settings, stored_tensors, weight_files

_BASE = "model."
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_SCALE = "_scale_inv"
_NO_PARAMETER = re.compile(r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$")
"""buffers that older versions saved and that are computed today"""
_FLOATS = ("F64", "F32", "F16", "BF16")
_EXPERT_NAMES = {
    "mixtral": (
        ".mlp.",
        ".block_sparse_moe.",
        {"gate_up_proj": ("w1", "w3"), "down_proj": ("w2",)},
    ),
    "qwen3_moe": (
        ".mlp.",
        ".mlp.",
        {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)},
    ),
}
"""transformers' name of a layer's experts, the files', and the parts of each stacked matrix"""


class Source(Protocol):
    """What one parameter is filled from."""

    @property
    def shape(self) -> list[int]: ...

    def rows(self, first: int, last: int) -> torch.Tensor:
        """Rows first to last of dimension 0."""
        ...


@dataclass(frozen=True)
class _Tensor:
    path: str
    name: str
    shape: list[int]

    def rows(self, first: int, last: int) -> torch.Tensor:
        with safe_open(self.path, framework="pt") as tensors:
            return tensors.get_slice(self.name)[first:last]


@dataclass(frozen=True)
class _Fp8:
    """fp8 codes, and for each block of them a scale to multiply with (DeepSeek-V3's layout)."""

    codes: _Tensor
    scales: _Tensor
    block: tuple[int, int]

    @property
    def shape(self) -> list[int]:
        return self.codes.shape

    def rows(self, first: int, last: int) -> torch.Tensor:
        height, width = self.block
        scales = self.scales.rows(first // height, -(-last // height)).float()
        wide = scales.repeat_interleave(height, 0).repeat_interleave(width, 1)
        offset = first % height
        codes = self.codes.rows(first, last).float()
        return codes * wide[offset : offset + last - first, : codes.shape[1]]


@dataclass(frozen=True)
class _Experts:
    """The matrices of each expert one below the other, expert after expert."""

    parts: list[list[Source]]

    @property
    def shape(self) -> list[int]:
        first = self.parts[0]
        return [len(self.parts), sum(part.shape[0] for part in first), first[0].shape[1]]

    def rows(self, first: int, last: int) -> torch.Tensor:
        chosen = self.parts[first:last]
        if not chosen:
            return torch.empty(0, *self.shape[1:])
        return torch.stack([torch.cat([p.rows(0, p.shape[0]) for p in one]) for one in chosen])


@dataclass(frozen=True)
class _Grown:
    """More rows than are stored: the others get the mean of those, as resize_token_embeddings."""

    stored: Source
    num_rows: int

    @property
    def shape(self) -> list[int]:
        return [self.num_rows, *self.stored.shape[1:]]

    @cached_property
    def _mean(self) -> torch.Tensor:
        return self.stored.rows(0, self.stored.shape[0]).float().mean(0)

    def rows(self, first: int, last: int) -> torch.Tensor:
        there = self.stored.shape[0]
        kept = self.stored.rows(min(first, there), min(last, there)).float()
        num_new = max(last - max(first, there), 0)
        return torch.cat([kept, self._mean.expand(num_new, *self._mean.shape)])


class _Files:
    """The tensors of a folder, and which of them have been taken."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        settings = read_settings(folder)
        self.vocab_size = settings.vocab_size
        quantized = cast(dict[str, list[int]], settings.config.get("quantization_config") or {})
        block = quantized.get("weight_block_size")
        self._fp8_block = (block[0], block[1]) if block else None
        self.files = weight_files(folder)
        self.left = {name for name in self.files if not _NO_PARAMETER.search(name)}
        self._headers = {
            file: stored_tensors(os.path.join(folder, file)) for file in set(self.files.values())
        }

    def take(self, name: str) -> Source:
        """The tensor of a name that the files hold."""
        codes, kind = self._tensor(name)
        if kind in _FLOATS:
            return codes
        if kind == "F8_E4M3" and self._fp8_block is not None and name + _SCALE in self.files:
            return _Fp8(codes, self._tensor(name + _SCALE)[0], self._fp8_block)
        raise InputError(
            f"{name} in {codes.path} is of type {kind}; expected {', '.join(_FLOATS)}: download "
            "the model's weights in bf16."
        )

    def _tensor(self, name: str) -> tuple[_Tensor, str]:
        file = self.files[name]
        self.left.discard(name)
        kind, shape = self._headers[file][name]
        return _Tensor(os.path.join(self.folder, file), name, shape), kind


def sources(
    folder: str, config: PretrainedConfig, shapes: Mapping[str, torch.Size]
) -> dict[str, Source]:
    """What fills each of the model's parameters.

    Raises InputError where the files lack one, hold it in another shape, or hold what no parameter
    takes.
    """
    files = _Files(folder)
    chosen: dict[str, Source] = {}
    missing = list[str]()
    for name, shape in shapes.items():
        source = _source(files, config, name)
        if source is None:
            missing.append(name)
            continue
        chosen[name] = _fitted(source, shape, name, files)
    if missing:
        raise InputError(
            f"{folder} lacks {len(missing)} weights of its own config, first {missing[0]}; "
            "download the model again."
        )
    if config.tie_word_embeddings:
        files.left.discard(_HEAD)  # a copy of the embedding: `heads_differ` has compared them
    if files.left:
        raise InputError(
            f"{folder} holds {len(files.left)} weights that its config has no place for, first "
            f"{min(files.left)}; expected those of a {config.model_type} model and no others: "
            "merge an adapter first, or download the model again."
        )
    return chosen


def _source(files: _Files, config: PretrainedConfig, name: str) -> Source | None:
    is_head = name == _EMBEDDING and config.tie_word_embeddings
    tied = (_HEAD,) if is_head else ()
    for stored in (_spelled(config, name), name.removeprefix(_BASE), *tied):
        if stored in files.files:
            return files.take(stored)
    names = _expert_names(config, name)
    if names and all(part in files.files for one in names for part in one):
        return _Experts([[files.take(part) for part in one] for one in names])
    return None


def _spelled(config: PretrainedConfig, name: str) -> str:
    """What the files call a parameter that is one tensor of theirs."""
    if config.model_type not in _EXPERT_NAMES:
        return name
    ours, theirs, _ = _EXPERT_NAMES[config.model_type]
    return name.replace(ours, theirs)


def _expert_names(config: PretrainedConfig, name: str) -> list[list[str]]:
    """What the files call the parts of a stacked parameter, by expert; [] for any other."""
    layer, _, matrix = name.rpartition(".experts.")
    if config.model_type not in _EXPERT_NAMES or not layer:
        return []
    ours, theirs, parts = _EXPERT_NAMES[config.model_type]
    place = (layer + ".").replace(ours, theirs).removesuffix(".")
    return [
        [f"{place}.experts.{expert}.{part}.weight" for part in parts[matrix]]
        for expert in range(num_experts(config))
    ]


def num_experts(config: PretrainedConfig) -> int:
    """Of a layer; 0 for a model without any."""
    names = ("num_local_experts", "num_experts")
    return next((number for name in names if (number := getattr(config, name, None))), 0)


def _fitted(source: Source, shape: torch.Size, name: str, files: _Files) -> Source:
    if source.shape == list(shape):
        return source
    is_vocabulary = name in (_EMBEDDING, _HEAD) and source.shape[1:] == list(shape[1:])
    if is_vocabulary and source.shape[0] == files.vocab_size < shape[0]:
        return _Grown(source, shape[0])
    raise InputError(
        f"{name} in {files.folder} has shape {source.shape}; the config says {list(shape)}. "
        "Download the model again."
    )


def heads_differ(folder: str) -> bool:
    """Whether the files hold an output head that is not the embedding, whatever the config says."""
    files = _Files(folder)
    embedding = next(
        (n for n in (_EMBEDDING, _EMBEDDING.removeprefix(_BASE)) if n in files.files), ""
    )
    if not embedding or _HEAD not in files.files:
        return False
    one, other = files.take(embedding), files.take(_HEAD)
    if one.shape != other.shape:
        return True
    num_rows = 1 << 12
    return not all(
        torch.equal(one.rows(first, first + num_rows), other.rows(first, first + num_rows))
        for first in range(0, one.shape[0], num_rows)
    )


def as_stored(
    config: PretrainedConfig, weights: Iterable[tuple[str, torch.Tensor]]
) -> Iterator[tuple[str, torch.Tensor]]:
    """A model's weights under the names that its files use: experts one by one."""
    for name, weight in weights:
        names = _expert_names(config, name)
        if not names:
            yield _spelled(config, name), weight
            continue
        for expert, parts in enumerate(names):
            yield from zip(parts, weight[expert].chunk(len(parts)), strict=True)
