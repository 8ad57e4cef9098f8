"""A model's weights as safetensors files of bounded size."""

import os
from collections.abc import Iterator

import torch
from safetensors.torch import save_file

from apps.common.errors import InputError
from apps.common.files import storage
from apps.common.files.model_settings import INDEX, WEIGHTS

FILE_BYTES = 4 << 30
"""largest weights file"""


def write_weights(
    folder: str, pieces: Iterator[tuple[str, torch.Tensor]], dtype: torch.dtype
) -> Iterator[int]:
    """Write named weights, with an index where one file does not hold them all.

    Yields the number of weights after each file; memory holds one file and not the model.
    """
    files: dict[str, str] = {}
    total_bytes = 0
    for number, part in enumerate(_in_files(pieces, dtype), start=1):
        name = f"model-{number:05d}.safetensors"
        save_file(part, os.path.join(folder, name), metadata={"format": "pt"})
        files |= dict.fromkeys(part, name)
        total_bytes += sum(t.numel() * t.element_size() for t in part.values())
        yield len(part)
    if len(set(files.values())) == 1:
        only = next(iter(files.values()))
        os.replace(os.path.join(folder, only), os.path.join(folder, WEIGHTS))
        return
    index = {"metadata": {"total_size": total_bytes}, "weight_map": files}
    storage.write_json(os.path.join(folder, INDEX), index)


def _in_files(
    pieces: Iterator[tuple[str, torch.Tensor]], dtype: torch.dtype
) -> Iterator[dict[str, torch.Tensor]]:
    part: dict[str, torch.Tensor] = {}
    part_bytes = 0
    for name, value in pieces:
        typed = _typed(name, value, dtype).contiguous()
        if part and part_bytes + typed.nbytes > FILE_BYTES:
            yield part
            part, part_bytes = {}, 0
        part[name] = typed
        part_bytes += typed.nbytes
    if part:
        yield part


def _typed(name: str, value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Integers and 8-bit floats are quantized weights, which stay what they are."""
    if not value.is_floating_point() or value.itemsize == 1:
        return value
    typed = value.to(dtype)
    if dtype == torch.float16 and not typed.isfinite().all():
        raise InputError(
            f"{name} has values that fp16 cannot hold (its largest is 65,504); export with "
            "--dtype bf16."
        )
    return typed
