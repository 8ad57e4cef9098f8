"""Everything that can be wrong with a run is said here, before the first worker or GPU is taken."""

import importlib.util
import os
import shutil
from dataclasses import dataclass, replace
from typing import cast

import torch
from transformers import PreTrainedModel

from apps.common.errors import ConfigError, InputError
from apps.common.files import config as configs
from apps.common.files import storage
from apps.common.packs import Pack
from apps.common.text.tokenizer import load_tokenizer
from apps.train.arguments import Arguments, check_run
from apps.train.checkpoint import checkpoint
from apps.train.checkpoint.checkpoint import RunMark
from apps.train.checkpoint.origin import base_digest
from apps.train.config import RunConfig
from apps.train.loop.samples import Sampler
from apps.train.loop.worker import choose_trained, run_order
from apps.train.model import load, shape
from apps.train.model.precision import resolve
from apps.train.model.stored import sources
from apps.train.planning.amounts import size
from apps.train.planning.memory import checkpoint_bytes
from apps.train.unread import read_part

_MATHEMATICS = (
    "max_length",
    "global_batch_rows",
    "seed",
    "precision",
    "strategy",
    "adapter",
    "lora",
    "top_layers",
    "keep_base",
    "rope",
    "resize_embeddings",
    "optim",
)
"""settings that change what is computed; the rest may differ from one start to the next"""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that can start."""

    config: RunConfig
    """with absolute locations, the pack's row length and the precision chosen"""
    pack: Pack
    num_steps: int
    commit: RunMark
    """what every checkpoint's marker says about the run"""
    done_step: int
    """step of the newest committed checkpoint; 0 without one"""


def prepare(config: RunConfig, arguments: Arguments | None = None) -> Prepared:
    """Check a run and resolve its settings; raises an InputError with one sentence.

    `arguments`: what check_run has made of them already.
    """
    pack, folder = arguments or check_run(config)
    resolved = replace(
        config,
        base=os.path.abspath(folder) if os.path.isdir(config.base) else config.base,
        data=storage.absolute(config.data),
        out=storage.absolute(config.out),
        precision=resolve(config.precision, config.device),
        max_length=pack.info.max_length,
    )
    model = _build(config, pack, folder)
    if config.metrics.sample_every_steps:
        Sampler(config.metrics, pack.info, load_tokenizer(folder))
    _check_trackers(resolved)
    storage.claim(resolved.out)
    order = run_order(resolved, pack.info.splits["train"].num_rows)
    identity = _identity(resolved, pack, folder, order.num_steps)
    commit: RunMark = {
        "identity": identity,
        "config_digest": configs.digest(resolved),
        "base_weights": base_digest(folder, with_weights=True),
        "validated_on": f"{config.metrics.val_rows} rows of {pack.info.digest}",
    }
    newest = next(iter(checkpoint.committed(resolved.out)), None)
    if newest is not None:
        if config.allow_change:
            _check_same_weights(model, identity, resolved)
        else:
            _check_unchanged(newest.commit, identity, resolved)
    _check_space(resolved, sum(p.numel() for p in model.parameters() if p.requires_grad))
    configs.write_resolved(resolved, resolved.out)
    done = newest.step if newest is not None else 0
    return Prepared(resolved, pack, order.num_steps, commit, done)


def _build(config: RunConfig, pack: Pack, folder: str) -> PreTrainedModel:
    """The model on the meta device, which its files must fill, with what is trained chosen."""
    model = load.build_on_meta(load.run_config(config, folder, pack.info.max_length))
    _check_vocabulary(pack, folder, config, model.config.vocab_size)
    _check_strategy(config, model.config.model_type)
    sources(folder, model.config, {name: p.shape for name, p in model.named_parameters()})
    choose_trained(model, config)
    return model


def _check_vocabulary(pack: Pack, folder: str, config: RunConfig, vocab_size: int) -> None:
    """Tokens that were added to a tokenizer have no embedding until the model is resized."""
    stops = pack.info.template.stop_token_ids(load_tokenizer(folder).backend)
    of_rows = (pack.split(name).largest_id() for name in pack.info.splits)
    largest = max(pack.info.pad_id, *stops, *of_rows)
    if largest >= vocab_size:
        raise InputError(
            f"{config.data} has token id {largest} but {config.base} has {vocab_size} embeddings; "
            "give --resize-embeddings to grow them, or pack again without the tokens that were "
            "added to the tokenizer."
        )


def _check_strategy(config: RunConfig, model_type: str) -> None:
    shape.check_strategy(config.strategy, model_type)
    if config.strategy == "deepspeed" and importlib.util.find_spec("deepspeed") is None:
        raise InputError(
            "--strategy deepspeed needs the deepspeed package; `pip install deepspeed`, or leave "
            "--strategy out for FSDP2."
        )


def _check_trackers(config: RunConfig) -> None:
    for name in config.log:
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"--log {name} needs the {name} package; install it with requirements.txt, or "
                "leave it out."
            )
    keeps = os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled")
    if "wandb" in config.log and not keeps:
        import wandb

        key = wandb.api.api_key
        if key is None:
            raise InputError(
                "--log wandb finds no key of yours; `wandb login`, set WANDB_API_KEY, or keep its "
                "files beside the run with WANDB_MODE=offline."
            )
        os.environ.setdefault("WANDB_API_KEY", key)  # goes to the workers, unlike ~/.netrc
    needs_server = "mlflow" in config.log and not storage.is_local(config.out)
    if needs_server and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise InputError(
            f"--log mlflow keeps no database in {config.out}; set MLFLOW_TRACKING_URI to a server, "
            "or give a local --out."
        )


def _identity(config: RunConfig, pack: Pack, folder: str, num_steps: int) -> dict[str, object]:
    settings = configs.to_dict(config)
    return {
        "data": pack.info.digest,
        "num_steps": num_steps,
        **{name: settings[name] for name in _MATHEMATICS},
        # last: adapter and top_layers change it too, and are what is to be named
        "base": base_digest(folder, with_weights=config.is_partial),
    }


def _check_unchanged(commit: RunMark, identity: dict[str, object], config: RunConfig) -> None:
    """Refuse to go on with other mathematics; names the first setting that differs."""
    before, after = read_part(commit.get("identity", {})), read_part(identity)
    for name, value in after.items():
        if before.get(name) != value:
            was, now = _difference(name, before.get(name), value)
            raise ConfigError(
                f"The run at {config.out} was started with {was}, now it is {now}; use its old "
                "settings, another --out, or --allow-change to go on with the new ones."
            )


_CHOOSES_WEIGHTS = ("strategy", "adapter", "lora", "top_layers", "resize_embeddings", "base")
"""parts of an identity that say which weights a checkpoint holds; the base last, whose digest is
another one where it is trained in part"""


def _check_same_weights(
    model: PreTrainedModel, identity: dict[str, object], config: RunConfig
) -> None:
    """Refuse a resume that trains other weights than the newest whole checkpoint holds.

    What it holds beyond them would fall back to the base's without a word.
    """
    newest = checkpoint.newest(
        config.out, "size", lambda _: None
    )  # the workers tell what they skip
    if newest is None:
        return
    before, after = read_part(newest.commit.get("identity", {})), read_part(identity)
    changed = [name for name in _CHOOSES_WEIGHTS if before.get(name) != after[name]]
    if not changed:
        return
    is_flat = config.strategy == "deepspeed"
    trained = {
        name: torch.Size([p.numel()]) if is_flat else p.shape
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    saved = checkpoint.tensor_shapes(newest, "model.")
    if saved != trained:
        was, now = _difference(changed[0], before.get(changed[0]), after[changed[0]])
        raise ConfigError(
            f"{newest.uri} was trained with {was}, now it is {now}: these train other weights, and "
            "no resume can take over what the checkpoint holds. Use the old setting; or export the "
            "checkpoint and start another --out from it."
        )


def _difference(name: str, before: object, now: object) -> tuple[str, str]:
    if isinstance(before, dict) and isinstance(now, dict):
        was, wanted = cast(dict[str, object], before), cast(dict[str, object], now)
        missing = object()
        key = next(k for k in wanted | was if was.get(k, missing) != wanted.get(k, missing))
        return f"{name}.{key} {was.get(key, 'not set')}", str(wanted.get(key, "not set"))
    if name == "data":
        return f"other data (digest {before})", str(now)
    if name == "base":
        return f"another base model (digest {before})", str(now)
    return f"{name} {before}", str(now)


def _check_space(config: RunConfig, num_trained: int) -> None:
    """A local disk must hold the checkpoints that are kept and the one being written."""
    if not storage.is_local(config.out):
        return
    one = int(checkpoint_bytes(num_trained, config.optim.state))
    needed = one * (config.checkpoint.keep_last + 1)
    free = shutil.disk_usage(storage.local_path(config.out)).free
    if needed > free + _held_bytes(config):
        raise InputError(
            f"{config.out} has {size(free)} free, but {config.checkpoint.keep_last + 1} "
            f"checkpoints take {size(needed)}; free some space, choose another --out or "
            "lower --checkpoint.keep-last."
        )


def _held_bytes(config: RunConfig) -> int:
    """What an earlier start left of these checkpoints; those that stay for good are not of them."""
    for_good = {c.uri for c in checkpoint.committed(config.out)[config.checkpoint.keep_last :]}
    folder = storage.local_path(checkpoint.folder(config.out))
    return sum(
        os.path.getsize(os.path.join(parent, name))
        for parent, _, names in os.walk(folder)
        if parent not in for_good
        for name in names
    )
