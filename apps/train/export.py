"""A run's checkpoint as a model folder that any Hugging Face tool, vLLM or SGLang loads.

    python -m apps.train export RUN --out MODEL [--step N] [--dtype bf16] [--gguf q8_0]
    python -m apps.train export RUN --out MODEL --quantize fp8
    python -m apps.train export RUN --out MODEL --tuned-share 0.9

Reads OUT/checkpoints shard by shard (never the whole model at once) and writes safetensors, the
base's tokenizer, the chat template that the data was packed with, generation settings that stop
where the template stops, and lineage.json.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping

import torch
from transformers import AutoConfig, GenerationConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from apps.common.command.events import Reporter
from apps.common.errors import InputError, NotFoundError
from apps.common.files import config as configs
from apps.common.files import costs, lineage, storage
from apps.common.files.lock import alone_in
from apps.common.files.model_folder import LICENCES
from apps.common.files.model_settings import (
    ADDED_TOKENS,
    SPECIAL_TOKENS,
    TOKENIZER,
    TOKENIZER_CONFIG,
    read_settings,
)
from apps.common.packs import PackInfo, open_pack
from apps.common.text.templates import write_template
from apps.common.text.tokenizer import load_tokenizer
from apps.train.arguments import check_export
from apps.train.checkpoint import checkpoint
from apps.train.checkpoint.checkpoint import Checkpoint
from apps.train.checkpoint.origin import check_origin
from apps.train.config import ExportConfig, RunConfig
from apps.train.gguf.write import check_can_be_written, write_gguf
from apps.train.loop.record import read_metrics
from apps.train.model import load, lora
from apps.train.model.base_folder import fetch_base
from apps.train.model.publish import publish, workspace
from apps.train.model.stored import Source, as_stored
from apps.train.model.weight_files import FILE_BYTES, write_weights

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_TOKENIZER_FILES = (
    TOKENIZER,
    "tokenizer.model",
    TOKENIZER_CONFIG,
    SPECIAL_TOKENS,
    ADDED_TOKENS,
    "vocab.json",
    "merges.txt",
)


def run_export(config: ExportConfig, reporter: Reporter) -> None:
    """Write the folder, and push it to a hub where asked to."""
    run = check_export(config)
    if config.quantize != "none":
        _check_quantize(config, run)
    if config.gguf != "none":
        _check_gguf(config, run)
    saved = _choose(storage.absolute(config.run), config, run, reporter)
    with alone_in(config.out), workspace(config.out) as folder:
        bar_of = reporter.progress("export", unit="weights")
        with checkpoint.reading(saved), bar_of as bar:
            for count in write_folder(folder, saved, run, config):
                bar.advance(count)
        published = publish(folder, config.out)
        if config.push:
            _push(published, config.push)
    reporter.event("export.done", out=config.out, step=saved.step, dtype=config.dtype)


def _check_quantize(config: ExportConfig, run: RunConfig) -> None:
    from apps.train.model.quantize import plan_quantization

    model = load.build_on_meta(AutoConfig.from_pretrained(fetch_base(run.base)))
    plan_quantization(model, config.quantize)


def _check_gguf(config: ExportConfig, run: RunConfig) -> None:
    """Refuse what GGUF has no words for before a weight is read: by a folder without weights."""
    base, pack = fetch_base(run.base), open_pack(run.data).info
    settings = load.run_config(run, base, pack.max_length)
    with tempfile.TemporaryDirectory() as folder:
        _write_settings(folder, base, settings, pack, _DTYPES[config.dtype])
        _write_tokenizer(folder, base, pack)
        check_can_be_written(folder)


def _choose(run_uri: str, config: ExportConfig, run: RunConfig, reporter: Reporter) -> Checkpoint:
    step = _best_step(run_uri, run) if config.best else config.step
    saved = checkpoint.newest(run_uri, run.checkpoint.verify, reporter.line, step)
    if saved is None:
        steps = ", ".join(str(c.step) for c in checkpoint.committed(run_uri)) or "none"
        wanted = f"of step {step} " if step is not None else ""
        raise NotFoundError(
            f"{config.run} has no whole checkpoint {wanted}(steps with one: {steps}); train on "
            "with the same `python -m apps.train run` command."
        )
    return saved


def _best_step(run_uri: str, run: RunConfig) -> int:
    """The step of the best validation loss, by the newest checkpoint's marker."""
    newest = next(iter(checkpoint.committed(run_uri)), None)
    if newest is None or not run.checkpoint.keep_best or not newest.commit["best_step"]:
        raise InputError(
            f"{run_uri} knows no best checkpoint; train with --checkpoint.keep-best and "
            "--metrics.val-every-steps, or leave --best out for the newest one."
        )
    return newest.commit["best_step"]


def write_folder(
    folder: str, saved: Checkpoint, run: RunConfig, config: ExportConfig
) -> Iterator[int]:
    """Write a whole model folder; yields the number of weights after each file."""
    base = fetch_base(run.base)
    pack = open_pack(run.data).info
    mixes = run.is_partial or config.tuned_share < 1
    check_origin(saved, run, base, pack, with_weights=mixes)
    settings = load.run_config(run, base, pack.max_length)
    dtype = _DTYPES[config.dtype]
    if config.adapter_only:
        trained = lora.scaled(read_weights(saved), config.tuned_share)
        yield lora.write(folder, load.build_on_meta(settings), trained, run, dtype)
    else:
        pieces = _whole_weights(saved, base, run, settings, config)
        if config.quantize != "none":
            pieces = _quantized(pieces, settings, config)
        yield from write_weights(folder, pieces, dtype)
        _write_settings(folder, base, settings, pack, dtype)
    _write_tokenizer(folder, base, pack)
    if config.gguf != "none":
        path = os.path.join(folder, f"model-{config.gguf}.gguf")
        write_gguf(folder, path, config.gguf, storage.absolute(config.out).rpartition("/")[2])
    _write_lineage(folder, saved, run, pack, config)


def read_weights(saved: Checkpoint, names: list[str] | None = None) -> dict[str, torch.Tensor]:
    """Trained weights of a checkpoint, fp32, all or those named."""
    shapes = checkpoint.tensor_shapes(saved, "model.")
    chosen = list(shapes) if names is None else names
    state = {"model": {name: torch.empty(shapes[name]) for name in chosen}}
    checkpoint.load(saved, state, alone=True)
    return state["model"]


def _quantized(
    pieces: Iterator[tuple[str, torch.Tensor]], settings: PretrainedConfig, config: ExportConfig
) -> Iterator[tuple[str, torch.Tensor]]:
    """The same weights rounded, and said so in the settings."""
    from apps.train.model.quantize import plan_quantization, quantized  # slow to import

    plan = plan_quantization(load.build_on_meta(settings), config.quantize)
    settings.quantization_config = plan.config()
    return quantized(pieces, plan, _DTYPES[config.dtype])


def _whole_weights(
    saved: Checkpoint,
    base: str,
    run: RunConfig,
    settings: PretrainedConfig,
    config: ExportConfig,
) -> Iterator[tuple[str, torch.Tensor]]:
    """The run's weights, whole again."""
    if run.adapter == "lora":
        trained = lora.scaled(read_weights(saved), config.tuned_share)
        pieces = lora.merged(load.base_weights(base, settings), trained, run.lora)
        return as_stored(settings, pieces)
    if run.top_layers:
        pieces = _over_base(load.base_weights(base, settings), read_weights(saved))
    else:
        pieces = _trained(saved, _DTYPES[config.dtype])
        if run.strategy == "deepspeed":
            pieces = _in_shape(pieces, settings)
    if config.tuned_share < 1:
        pieces = _on_the_way(load.base_sources(base, settings), pieces, config.tuned_share)
    return as_stored(settings, pieces)


def _over_base(
    base: Iterator[tuple[str, torch.Tensor]], trained: dict[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The base model's weights, but for those that were trained."""
    for name, weight in base:
        yield name, trained.get(name, weight)


def _on_the_way(
    base: Mapping[str, Source], pieces: Iterator[tuple[str, torch.Tensor]], share: float
) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights `share` of the way from the base's to `pieces`: .9 from 1.0 to 2.0 is 1.9."""
    for name, end in pieces:
        start = base[name].rows(0, base[name].shape[0])
        yield name, torch.lerp(start.float(), end.float(), share)


def _trained(saved: Checkpoint, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights one group at a time, so that memory holds one file and not the model."""
    shapes = checkpoint.tensor_shapes(saved, "model.")
    group: list[str] = []
    group_bytes = 0
    for name in sorted(shapes):
        group.append(name)
        group_bytes += shapes[name].numel() * dtype.itemsize
        if group_bytes >= FILE_BYTES // 4:
            yield from read_weights(saved, group).items()
            group, group_bytes = [], 0
    if group:
        yield from read_weights(saved, group).items()


def _in_shape(
    pieces: Iterator[tuple[str, torch.Tensor]], settings: PretrainedConfig
) -> Iterator[tuple[str, torch.Tensor]]:
    """DeepSpeed's weights lie flat in the checkpoint."""
    empty = load.build_on_meta(settings)
    shapes = {name: parameter.shape for name, parameter in empty.named_parameters()}
    for name, value in pieces:
        yield name, value.view(shapes[name])


def _write_settings(
    folder: str, base: str, settings: PretrainedConfig, pack: PackInfo, dtype: torch.dtype
) -> None:
    """config.json of what was trained, and generation settings that stop at turn ends."""
    settings.use_cache = True
    settings.dtype = dtype
    vars(settings).pop("auto_map", None)  # names code files of the base, which do not come along
    settings.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[settings.model_type]]
    settings.save_pretrained(folder)
    tokenizer = load_tokenizer(base)
    stops = list(pack.template.stop_token_ids(tokenizer.backend))
    bos = tokenizer.special_tokens.get("bos_token")
    GenerationConfig(
        bos_token_id=tokenizer.backend.token_to_id(bos) if bos else None,
        eos_token_id=stops[0] if len(stops) == 1 else stops,
        pad_token_id=pack.pad_id,
        **_sampling(base),
    ).save_pretrained(folder)


def _sampling(base: str) -> dict[str, bool | float]:
    """How the base asks to be sampled from, which servers take for the default."""
    stated = read_settings(base)
    if stated.generation.get("do_sample") is True:
        return {"do_sample": True, **stated.sampling}
    return {name: x for name, x in stated.sampling.items() if name == "repetition_penalty"}


def _write_tokenizer(folder: str, base: str, pack: PackInfo) -> None:
    for name in _TOKENIZER_FILES:
        if os.path.exists(os.path.join(base, name)):
            shutil.copyfile(os.path.join(base, name), os.path.join(folder, name))
    for name, path in _licence_files(base):
        shutil.copyfile(path, os.path.join(folder, name))
    write_template(folder, pack.template)


def _licence_files(base: str) -> Iterator[tuple[str, str]]:
    """Name and path of each; those of a folder get its name before theirs: LICENSES-MIT.txt."""
    for name in os.listdir(base):
        path = os.path.join(base, name)
        if not name.upper().startswith(LICENCES):
            continue
        below = os.listdir(path) if os.path.isdir(path) else []
        found = {f"{name}-{each}": os.path.join(path, each) for each in below} or {name: path}
        yield from ((to, source) for to, source in found.items() if os.path.isfile(source))


def _write_lineage(
    folder: str, saved: Checkpoint, run: RunConfig, pack: PackInfo, config: ExportConfig
) -> None:
    run_uri = checkpoint.run_of(saved)
    loss = next((r["loss"] for r in read_metrics(run_uri) if r["step"] == saved.step), None)
    cost = costs.facts(run_uri)
    training_usd = saved.commit["seconds"] / 3600 * run.metrics.usd_per_hour
    record = lineage.collect(
        inputs={"base": str(saved.commit.get("identity", {})["base"]), "data": pack.digest},
        config=config,
        base_model=run.base,
        run=configs.to_dict(run),
        checkpoint={"uri": saved.uri, "step": saved.step},
        template=pack.template.name,
        tokens=saved.commit["tokens"],
        training_seconds=saved.commit["seconds"],
        loss=loss,
        usd=cost["usd"] if cost else training_usd,
        cost=cost,
    )
    lineage.write(folder, record)


def _push(folder: str, repo_id: str) -> None:
    import httpx
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(repo_id, exist_ok=True, private=True)
        HfApi().upload_folder(repo_id=repo_id, folder_path=folder)
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise InputError(
            f"Pushing to {repo_id} failed ({' '.join(str(error).split())[:200]}); check the name, "
            "the network and `hf auth login`. The folder itself was written."
        ) from error
