"""What is wrong with a command's arguments, as far as that is seen without torch.

Importing torch and transformers takes seconds, in which nobody waits for a misspelled path.
"""

import os
from typing import NamedTuple

from apps.common.errors import ConfigError, InputError, NotFoundError
from apps.common.files import config as configs
from apps.common.files import storage
from apps.common.files.model_settings import CONFIG, read_json
from apps.common.files.schema import LINEAGE_NAME
from apps.common.packs import Pack, open_pack
from apps.common.text.tokenizer import load_tokenizer
from apps.train.batches.passages import text_files
from apps.train.config import BaseConfig, ExportConfig, RunConfig
from apps.train.gguf.source import check_source
from apps.train.model.base_folder import fetch_base
from apps.train.model.publish import PARTIAL
from apps.train.planning.workload import check_rows
from apps.train.unread import check_read


class _Output(NamedTuple):
    """What a command writes, and how it is known again."""

    keys: frozenset[str]
    """of the settings that lie beside it"""
    is_model: bool
    expected: str
    """what `--out` may be"""


_RUN = _Output(frozenset({"base", "data"}), False, "a new folder, or the run to go on with")
_BASE = _Output(frozenset({"text", "from_gguf"}), True, "a new folder, or one made by this command")


class Arguments(NamedTuple):
    """What a run is made from."""

    pack: Pack
    base: str
    """local folder"""


def check_run(config: RunConfig) -> Arguments:
    """Find the pack and the base, and whether they go together."""
    for name in ("base", "data", "out"):
        if not getattr(config, name):
            raise ConfigError(f"--{name} is missing; give it a path or URI (see --help).")
    check_read(config)
    _check_own_folder(config.out, _RUN)
    pack = open_pack(storage.absolute(config.data))
    check_rows(config, pack.info.max_length)
    base = fetch_base(config.base)
    _check_pack(pack, base, config)
    return Arguments(pack, base)


def _check_own_folder(out: str, ours: _Output) -> None:
    """Refuse a folder that is somebody else's: a model, a pack or the output of another command."""
    settings = storage.join(out, configs.RESOLVED_NAME)
    has_settings = storage.exists(settings)
    is_own = has_settings and ours.keys <= configs.load_yaml(settings).keys()
    theirs = configs.RESOLVED_NAME if has_settings and not is_own else None
    if not (is_own and ours.is_model) and storage.exists(storage.join(out, CONFIG)):
        theirs = CONFIG
    if theirs is not None:
        raise InputError(
            f"--out {out} holds a {theirs} that this command has not written; expected "
            f"{ours.expected}."
        )


def _check_pack(pack: Pack, base: str, config: RunConfig) -> None:
    train = pack.info.splits["train"]
    if not train.num_rows or not train.num_supervised_tokens:
        raise InputError(
            f"{config.data} holds {train.num_rows} training rows with "
            f"{train.num_supervised_tokens} supervised tokens; pack more conversations."
        )
    if config.judges_by_validation and not pack.info.splits["val"].num_rows:
        raise InputError(
            f"{config.data} has no validation rows, and checkpoint.keep_best and metrics.patience "
            "judge by them; pack with a larger --val-percent, or leave both out."
        )
    if load_tokenizer(base).digest != pack.info.tokenizer_digest:
        raise InputError(
            f"{config.data} was packed with another tokenizer than that of {config.base}; run "
            f"`python -m apps.data pack ... --tokenizer {config.base}`."
        )


def check_base(config: BaseConfig) -> None:
    """Find what is to be read, and refuse a folder that holds something else."""
    storage.local_path(config.out)
    _check_own_folder(config.out, _BASE)
    if config.from_gguf:
        check_source(config.from_gguf)
    else:
        text_files(config.text)


def check_export(config: ExportConfig) -> RunConfig:
    """The settings of the run, which must be one that can be exported so."""
    run_uri = storage.absolute(config.run)
    settings = storage.join(run_uri, configs.RESOLVED_NAME)
    if not storage.exists(settings) or not _RUN.keys <= configs.load_yaml(settings).keys():
        raise NotFoundError(
            f"{config.run} is not a run (it has no {configs.RESOLVED_NAME} of one); expected the "
            "--out of `python -m apps.train run`."
        )
    run = configs.load(RunConfig, settings)
    if config.adapter_only and run.adapter != "lora":
        raise InputError(f"{config.run} trained all weights; leave --adapter-only out.")
    if config.adapter_only and run.rope.kind != "none":
        raise InputError(
            f"{config.run} extended the positions (rope.kind {run.rope.kind}, factor "
            f"{run.rope.factor:g}), which an adapter's folder cannot say; leave --adapter-only out "
            "for the merged model, whose config does."
        )
    _check_export_folder(config.out, run)
    return run


def _check_export_folder(out: str, run: RunConfig) -> None:
    """Refuse to replace anything but an earlier export; in a bucket only its weights are."""
    if not storage.is_local(out):
        return
    path = storage.local_path(out)
    listed = {path} if os.path.isfile(path) else set(storage.list_dir(out))
    there = {name for name in listed if not name.endswith(PARTIAL)}
    is_model = there & {CONFIG, "adapter_config.json"} or _is_cut_export(path)
    is_export = LINEAGE_NAME in there and is_model
    if there and (not is_export or storage.absolute(out) == run.base):
        raise InputError(
            f"--out {out} holds {min(there)} and is no earlier export; expected a new or an empty "
            "folder, or a model folder to replace."
        )
    if os.path.ismount(path):
        storage.claim(path)
    else:
        storage.claim(os.path.dirname(path), "the parent folder of --out")


def _is_cut_export(folder: str) -> bool:
    """Whether an export was killed there before its config came: on a disk that is mounted."""
    return "checkpoint" in read_json(folder, LINEAGE_NAME)
