"""What a run was started from, and whether that still lies where it was.

A run names its base and its pack by their places. Who reads them again beside a checkpoint (a
resume, an export) must find there what the weights were trained from.
"""

import hashlib
import os

from apps.common.errors import InputError
from apps.common.files import config as configs
from apps.common.files import storage
from apps.common.packs import PackInfo
from apps.common.text.tokenizer import load_tokenizer
from apps.train.checkpoint.checkpoint import Checkpoint
from apps.train.config import RunConfig
from apps.train.unread import read_part

_SAMPLE_BYTES = 1 << 20
_WRITTEN = ("adapter", "lora", "top_layers", "strategy", "rope", "resize_embeddings")
"""settings that say how a checkpoint's weights become a model"""


def base_digest(folder: str, *, with_weights: bool) -> str:
    """Names and sizes of the base model's files, and its config: cheap, and enough to tell.

    What is trained in part is read beside its base at every start. There the end of each file
    counts too: no two trainings of one model leave the same.
    """
    hasher = hashlib.blake2b(digest_size=16)
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.endswith(".safetensors"):
            hasher.update(f"{name} {os.path.getsize(path)}\n".encode())
            if with_weights:
                hasher.update(_end_of(path))
        elif name == "config.json":
            hasher.update(storage.read_bytes(path))
    return hasher.hexdigest()


def _end_of(path: str) -> bytes:
    with open(path, "rb") as handle:
        handle.seek(max(os.path.getsize(path) - _SAMPLE_BYTES, 0))
        return handle.read()


def check_origin(
    saved: Checkpoint, run: RunConfig, folder: str, pack: PackInfo, *, with_weights: bool
) -> None:
    """Refuse to make a model of a checkpoint with another base or pack than it was trained from.

    `folder` and `pack` lie now at run.base and run.data. `with_weights`: the base's weights go into
    the model too.
    """
    before, settings = read_part(saved.commit.get("identity", {})), read_part(configs.to_dict(run))
    for name in _WRITTEN:
        if name in before and before[name] != settings[name]:
            raise InputError(
                f"{saved.uri} was trained with {name} {before[name]}, and its run now says "
                f"{settings[name]}; export a checkpoint of the new setting with --step, or start "
                "the run with the old one and --allow-change first."
            )
    if "data" in before and before["data"] != pack.digest:
        raise InputError(
            f"{run.data} is not the pack that {saved.uri} was trained on (digest {pack.digest}, "
            f"then {before['data']}), and its chat template would be exported; put the old pack "
            "back there."
        )
    weights = saved.commit.get("base_weights") if with_weights else None
    is_same = weights in (None, base_digest(folder, with_weights=True))
    if "base" in before:
        is_same &= before["base"] == base_digest(folder, with_weights=run.is_partial)
    if not is_same or load_tokenizer(folder).digest != pack.tokenizer_digest:
        raise InputError(
            f"{run.base} is not the base model that {saved.uri} was trained from: its weights, "
            "config or tokenizer are others now; put the old ones back there."
        )
