"""`python -m apps.data pack`: clean conversations to packed rows of token ids.

    1. tokenize: a few row groups of a clean folder (mix.py) per unit -> segments (tokens.py)
    2. plan:     units side by side until a shard is full; folders by weight
    3. pack:     one shard per unit, best-fit-decreasing over its segments (packing.py)

Which conversations meet in a shard depends on the input alone, so the shards are byte-identical for
any number of workers, and after a kill and the same command again.
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from apps.common import packs
from apps.common.command.events import Reporter
from apps.common.errors import CorruptError, InputError
from apps.common.files import config as configs
from apps.common.files import lineage, storage
from apps.common.files.model_folder import text_folder
from apps.common.files.schema import LEDGER_NAME
from apps.common.text.conversation import ChatTemplate, Message
from apps.common.text.template_check import check_template
from apps.common.text.templates import load_template
from apps.common.text.tokenizer import Tokenizer, load_tokenizer
from apps.data.config import PackConfig
from apps.data.packing.accounts import account
from apps.data.packing.best_fit import best_fit_decreasing, one_per_row
from apps.data.packing.identity import read_identity
from apps.data.packing.mix import Source, find_sources
from apps.data.packing.tokenize import (
    TokenizeArgs,
    TokenizedUnit,
    TokenLedger,
    read_segments,
    tokenize_unit,
)
from apps.data.units import Count, Process, RunUnits, Unit, forget_others, remove_other_files
from apps.data.write.out_folder import settings_there

_WORK = "_work"
_SHARD_TOKENS = 8 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """Everything `pack` needs, checked."""

    config: PackConfig
    tokenizer: Tokenizer
    template: ChatTemplate
    sources: tuple[Source, ...]
    identity: tuple[tuple[Message, ...], ...]

    @property
    def digest(self) -> str:
        """Of all that decides the rows, wherever it lies; only equal ones may share a folder."""
        places = {"inputs": ("",), "tokenizer": "", "template": "", "identity": None}
        config = dataclasses.replace(self.config, out="", workers=0, **places)
        inputs = [[s.weight, *(f.blake2b for f in s.files)] for s in self.sources]
        identity = [[dataclasses.asdict(m) for m in c] for c in self.identity]
        what = [
            configs.to_dict(config),
            inputs,
            self.tokenizer.digest,
            self.template.to_dict(),
            identity,
        ]
        return hashlib.blake2b(json.dumps(what).encode(), digest_size=16).hexdigest()


def finished(job: Job) -> packs.PackInfo | None:
    """The pack in `--out`, when it is whole.

    Raises InputError when it was made from other settings or inputs.
    """
    commit = storage.read_commit(job.config.out)
    if commit is None:
        return None
    if commit.get("made_from") != job.digest:
        raise InputError(
            f"{job.config.out} holds a pack made from other settings or inputs; choose another "
            "--out or delete it."
        )
    _put_away(job.config.out)
    return packs.open_pack(job.config.out).info


def _put_away(out: str) -> None:
    """Remove what is of use until the commit alone, also that of a run that another overtook."""
    storage.remove_tree(storage.join(out, _WORK))
    for folder in (out, *(storage.join(out, split) for split in packs.SPLITS)):
        storage.remove_unfinished(folder)


def run_pack(
    job: Job, reporter: Reporter, run_units: RunUnits, count: Count | None = None
) -> packs.PackInfo:
    """Make the pack, or go on with one that was interrupted; `count` feeds Ray's metrics."""
    config = job.config
    configs.write_resolved(config, config.out)
    work = storage.join(config.out, _WORK)
    tokenized = _tokenize(job, reporter, run_units, work)
    shards = _pack(job, reporter, run_units, work, tokenized, count)
    info = _finish(job, tokenized, shards)
    _put_away(config.out)
    return info


def prepare(config: PackConfig) -> Job:
    """Read and check --out, tokenizer, template and inputs, before any work."""
    config = dataclasses.replace(config, out=storage.absolute(config.out))
    settings_there(config.out, PackConfig)
    folder = text_folder(config.tokenizer)
    tokenizer = load_tokenizer(folder)
    name = folder if config.template == "own" else config.template
    template = load_template(name, tokenizer)
    check_template(template, tokenizer)
    identity: list[tuple[Message, ...]] = []
    if config.identity is not None:
        identity = read_identity(config.identity, config.identity_name, config.identity_makers)
    return Job(config, tokenizer, template, find_sources(config.inputs), tuple(identity))


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A finished unit of the first stage."""

    key: str
    weight: float
    manifest: TokenizedUnit
    is_identity: bool


@dataclass(frozen=True, slots=True)
class Part:
    """A unit's segments of one split, or a fraction of them."""

    unit: str
    fraction: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PackArgs:
    """One shard of packed rows."""

    shard: str
    split: str
    parts: tuple[Part, ...]
    max_length: int
    pad_id: int
    mode: Literal["pack", "pad"]


@dataclass(frozen=True, slots=True)
class PackedShard:
    """The manifest: a shard, or nothing when its parts are empty."""

    split: str
    described: packs.SplitInfo


def _tokenize(job: Job, reporter: Reporter, run_units: RunUnits, work: str) -> list[Tokenized]:
    units, weights = tokenize_units(job)
    tokenize = functools.partial(tokenize_unit, tokenizer_json=job.tokenizer.backend.to_str())
    num_conversations = sum(sum(f.group_rows) for s in job.sources for f in s.files)
    with reporter.progress(
        "tokenize", total=num_conversations + len(job.identity), unit="conversations"
    ) as bar:
        tokens = 0

        def on_done(manifest: TokenizedUnit) -> None:
            nonlocal tokens
            tokens += sum(split.tokens for split in manifest.splits.values())
            bar.advance(manifest.ledger.conversations, tokens=tokens)

        manifests = run_units(units, Process(tokenize, TokenizedUnit), work, on_done)
    return [
        Tokenized(unit.key, weight, manifest, unit.args.file is None)
        for unit, weight, manifest in zip(units, weights, manifests, strict=True)
    ]


def tokenize_units(job: Job) -> tuple[list[Unit[TokenizeArgs]], list[float]]:
    """Units of about 16 MB of text each, and the weight of each."""
    config = job.config
    common = TokenizeArgs(
        max_length=config.max_length,
        over_long=config.over_long,
        val_percent=config.val_percent,
        template=job.template,
        tokenizer=job.tokenizer.digest,
        control_tokens=tuple(job.tokenizer.control_tokens),
    )
    units: list[Unit[TokenizeArgs]] = []
    weights: list[float] = []
    for source in job.sources:
        for file in source.files:
            for groups in file.units():
                name = f"{file.uri}, row groups {groups.first} to {groups.stop - 1}"
                args = dataclasses.replace(common, file=groups)
                units.append(Unit(stage="tokenize", name=name, args=args))
                weights.append(source.weight)
    if job.identity:
        args = dataclasses.replace(common, inline=job.identity)
        units.append(Unit(stage="tokenize", name="identity conversations", args=args))
        weights.append(1.0)
    return units, weights


def _pack(
    job: Job,
    reporter: Reporter,
    run_units: RunUnits,
    work: str,
    tokenized: list[Tokenized],
    count: Count | None,
) -> list[PackedShard]:
    units = [
        Unit(stage="pack", name=f"shard {args.shard}", args=args)
        for split in packs.SPLITS
        for args in _shard_args(job, tokenized, split)
    ]
    pack = functools.partial(pack_unit, out=job.config.out, work=work)
    forget_others(units, work)
    with reporter.progress("pack", total=len(units), unit="shards") as bar:

        def on_done(packed: PackedShard) -> None:
            bar.advance()
            if count is not None:
                count("packed_rows_total", packed.described.num_rows, split=packed.split)
                count("packed_tokens_total", packed.described.num_tokens, split=packed.split)

        shards = run_units(units, Process(pack, PackedShard), work, on_done)
    wanted = {storage.join(job.config.out, unit.args.shard) for unit in units}
    for split in packs.SPLITS:
        remove_other_files(storage.join(job.config.out, split), wanted, ".parquet")
    return shards


def _shard_args(job: Job, tokenized: list[Tokenized], split: str) -> list[PackArgs]:
    """Shards of about 8 million token slots: parts in the order of the input, copies after it."""
    parts: list[Part] = []
    sizes: list[float] = []
    num_copies = math.ceil(max((unit.weight for unit in tokenized), default=0))
    for copy in range(num_copies):
        for unit in tokenized:
            counts = unit.manifest.splits[split]
            fraction = min(1.0, unit.weight - copy)
            if fraction > 0 and counts.segments:
                parts.append(Part(unit.key, fraction))
                is_pad = job.config.mode == "pad"
                size = counts.segments * job.config.max_length if is_pad else counts.tokens
                sizes.append(size * fraction)
    return [
        PackArgs(
            shard=f"{split}/{i:05d}.parquet",
            split=split,
            parts=tuple(parts[first:stop]),
            max_length=job.config.max_length,
            pad_id=job.tokenizer.pad_id,
            mode=job.config.mode,
        )
        for i, (first, stop) in enumerate(even_ranges(sizes, _SHARD_TOKENS))
    ]


def even_ranges(sizes: Sequence[float], target: float) -> list[tuple[int, int]]:
    """Consecutive ranges of about equal sums, as many as `sum(sizes) / target`, none empty."""
    if not sizes:
        return []
    total = sum(sizes)
    num_ranges = min(len(sizes), max(1, round(total / target)))
    ranges: list[tuple[int, int]] = []
    first, done = 0, 0.0
    for i, size in enumerate(sizes, 1):
        done += size
        if done >= total * (len(ranges) + 1) / num_ranges or i == len(sizes):
            ranges.append((first, i))
            first = i
    return ranges


def pack_unit(args: PackArgs, folder: str, *, out: str, work: str) -> PackedShard:
    """One shard, written to its final place."""
    del folder
    segments = [
        segment
        for part in args.parts
        for segment in read_segments(
            storage.join(work, part.unit, f"{args.split}.parquet"), part.fraction
        )
    ]
    lengths = [len(ids) for ids, _ in segments]
    is_pad = args.mode == "pad"
    rows_of = one_per_row(lengths) if is_pad else best_fit_decreasing(lengths, args.max_length)
    rows = packs.fill_rows(
        [[segments[i] for i in row] for row in rows_of], args.max_length, args.pad_id
    )
    shards = [packs.write_shard(out, args.shard, rows)] if rows_of else []
    return PackedShard(args.split, packs.describe_split([rows], shards, args.max_length))


def _finish(job: Job, tokenized: list[Tokenized], shards: list[PackedShard]) -> packs.PackInfo:
    config = job.config
    ledger = _ledger(job, tokenized, shards)
    info = packs.PackInfo(
        max_length=config.max_length,
        pad_id=job.tokenizer.pad_id,
        mode=config.mode,
        tokenizer_digest=job.tokenizer.digest,
        template=job.template,
        splits={split: _sum(shards, split, config.max_length) for split in packs.SPLITS},
    )
    if not info.splits["train"].num_rows:
        raise InputError(
            "No conversation is left for training; ledger: " + json.dumps(ledger["conversations"])
        )
    storage.write_json(storage.join(config.out, LEDGER_NAME), ledger)
    inputs = {f.uri: f.blake2b for source in job.sources for f in source.files}
    inputs[config.tokenizer] = job.tokenizer.digest
    record = lineage.collect(inputs=inputs, config=config, template=job.template.name)
    lineage.write(config.out, record)
    packs.finish_pack(config.out, info, made_from=job.digest)
    return info


def _sum(shards: list[PackedShard], split: str, max_length: int) -> packs.SplitInfo:
    described = [shard.described for shard in shards if shard.split == split]
    num_rows = sum(one.num_rows for one in described)
    num_tokens = sum(one.num_tokens for one in described)
    return packs.SplitInfo(
        num_rows=num_rows,
        num_segments=sum(one.num_segments for one in described),
        num_tokens=num_tokens,
        num_supervised_tokens=sum(one.num_supervised_tokens for one in described),
        fill=num_tokens / (num_rows * max_length) if num_rows else 0.0,
        shards=tuple(file for one in described for file in one.shards),
    )


def _ledger(job: Job, tokenized: list[Tokenized], shards: list[PackedShard]) -> dict[str, Any]:
    """What became of all conversations and rounds; raises CorruptError when it does not add up."""
    read = _total(tokenized, lambda unit: not unit.is_identity)
    generated = _total(tokenized, lambda unit: unit.is_identity)
    expected = sum(sum(f.group_rows) for s in job.sources for f in s.files)
    if read.conversations != expected:
        raise CorruptError(
            f"The inputs hold {expected:,} conversations, but {read.conversations:,} were read; "
            "please report this."
        )
    return {
        **account(read),
        "generated": account(generated),
        "mix": {source.uri: source.weight for source in job.sources},
        "segments": {
            split: sum(unit.manifest.splits[split].segments for unit in tokenized)
            for split in packs.SPLITS
        },
        "segments_after_weights": {
            split: sum(shard.described.num_segments for shard in shards if shard.split == split)
            for split in packs.SPLITS
        },
    }


def _total(tokenized: list[Tokenized], wanted: Callable[[Tokenized], bool]) -> TokenLedger:
    total = TokenLedger()
    for unit in tokenized:
        if wanted(unit):
            total.add(unit.manifest.ledger)
    return total


def report(reporter: Reporter, info: packs.PackInfo, out: str) -> None:
    train, val = info.splits["train"], info.splits["val"]
    reporter.event(
        "pack.done",
        out=out,
        train_rows=train.num_rows,
        val_rows=val.num_rows,
        tokens=train.num_tokens,
        supervised_tokens=train.num_supervised_tokens,
        fill=round(train.fill, 4),
    )
