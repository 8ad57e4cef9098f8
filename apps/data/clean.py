"""`clean`: raw dumps to clean conversations, in four steps of units.

    index   pieces of files: digest, where ranges of records begin    index.py
    clean   each range: read, convert, apply the rules                ranges.py, clean_range.py
    decide  once: which conversations repeat others                   duplicates/
    write   each shard: what stays, in input order                    shards.py

Everything until the commit lies in <out>/_work and is found there again after a kill.
"""

import contextlib
import dataclasses
from collections.abc import Generator
from typing import Any

from apps.common.command.events import Reporter
from apps.common.errors import InputError, StorageError
from apps.common.files import config as configs
from apps.common.files import lineage, schema, storage
from apps.data import clean_range, ranges
from apps.data.clean_range import CleanedRange
from apps.data.config import CleanConfig
from apps.data.duplicates.decide import DecideArgs, Decided, Kept, decide
from apps.data.ledger import Ledger
from apps.data.read import index
from apps.data.read import inputs as read_inputs
from apps.data.read.index import FileIndex
from apps.data.read.inputs import Inputs
from apps.data.units import (
    Count,
    Process,
    RunUnits,
    Unit,
    forget_others,
    remove_other_files,
    run_serially,
)
from apps.data.write import out_folder, shards
from apps.data.write.shards import Shard

WORK_DIR = "_work"
SAMPLES_NAME = "samples.json"
_MB = 1 << 20
_HINTS = {
    "unknown-role": "name the speakers, as in --map role:Ann=user,role:Bot=assistant",
    "several-conversations": "a list holds the messages of several conversations, by their ids: "
    "make one list of each",
}
"""What to do where nothing can be read, by the reason."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class IndexedInputs:
    """What is read, and what of the inputs is left out."""

    indexes: list[FileIndex]
    skipped: dict[str, str]
    """File -> why it is no dump."""
    stamps: dict[str, str]
    """File -> what changes when the file does."""


def prepare(config: CleanConfig) -> tuple[CleanConfig, Inputs]:
    """Check everything that can be checked without work; the resolved settings and the files.

    Raises InputError (exit code 2) for a missing input, an output folder that cannot be written,
    or one that holds something else.
    """
    config = config.resolved()
    files = read_inputs.find(config.inputs)
    out_folder.claim(config)
    return config, files


def finished(config: CleanConfig, files: Inputs, reporter: Reporter) -> bool:
    """Whether the output is committed already; it is reported again.

    Raises InputError when the inputs are others or changed since.
    """
    ledger = out_folder.committed(config, files)
    if ledger is None:
        return False
    _put_away(config.out)
    reporter.line(f"{config.out} is already finished.")
    _report_done(config, ledger, reporter)
    return True


def _put_away(out: str) -> None:
    """Remove what is of use until the commit alone, also that of a run that another overtook."""
    storage.remove_tree(storage.join(out, WORK_DIR))
    for part in ("", schema.DROPPED_DIR, schema.QUARANTINE_DIR):
        storage.remove_unfinished(storage.join(out, part) if part else out)


_INDEX = Process(index.index, index.IndexedPiece)
_CLEAN = Process(clean_range.clean_unit, CleanedRange)
_DECIDE = Process(decide, Decided)
_WRITE = Process(shards.write, Shard)


def run(
    config: CleanConfig,
    files: Inputs,
    reporter: Reporter,
    run_units: RunUnits = run_serially,
    count: Count | None = None,
) -> Ledger:
    """Clean `files` into `config.out`; arguments come from `prepare`."""
    work = storage.join(storage.absolute(config.out), WORK_DIR)
    is_new = not storage.list_dir(work)
    reporter.event("clean.start", files=len(files.files), out=config.out)
    with _nothing_left_if_refused(config.out, work, is_new=is_new):
        read = _index(config, files, reporter, run_units, work)
    units = ranges.range_units(read.indexes, config)
    units = ranges.with_chains(units, read.indexes, run_units, work, reporter)
    ledger = damage_of(read.indexes)
    _count(ledger, count)
    with reporter.progress("clean", total=len(units), unit="ranges") as bar:

        def on_done(cleaned: CleanedRange) -> None:
            ledger.add(cleaned.ledger)
            bar.advance(records=ledger.records.input, kept=ledger.records.kept)
            _count(cleaned.ledger, count)

        cleaned = run_units(units, _CLEAN, work, on_done)
    with _nothing_left_if_refused(config.out, work, is_new=is_new):
        _check_readable(ledger, read.indexes, cleaned)
    decided = run_units([_decide_unit(cleaned, config)], _DECIDE, work)[0]
    _drop_duplicates(ledger, decided, count)
    written = _write(config, decided, cleaned, reporter, run_units, work)
    _commit(config, ledger, read, cleaned, written)
    _put_away(config.out)
    _report_done(config, ledger, reporter)
    return ledger


@contextlib.contextmanager
def _nothing_left_if_refused(out: str, work: str, *, is_new: bool) -> Generator[None]:
    """What was begun on a wrong input would keep the right one out of the folder.

    What an earlier run had done stays: it goes on when its input is mended.
    """
    try:
        yield
    except InputError:
        if is_new:
            storage.remove_tree(work)
            configs.forget_resolved(out)
        raise


def _index(
    config: CleanConfig, files: Inputs, reporter: Reporter, run_units: RunUnits, work: str
) -> IndexedInputs:
    pieces = index.units(files.files, config.unit_mb * _MB, config.reading())
    with reporter.progress("index", total=len(pieces), unit="pieces") as bar:
        indexes = index.join(run_units(pieces, _INDEX, work, lambda _: bar.advance()))
    indexes, unknown = known_files(indexes, config)
    _check_encodings(indexes, reporter)
    skipped = {**dict.fromkeys(files.skipped, "by its name no dump"), **unknown}
    if skipped:
        reporter.event("clean.skipped", files=skipped)
    if told := [file.uri for file in indexes if file.seen.is_told_to_a_model]:
        reporter.event("clean.instructions", read_as="system", files=told)
    stamps = {piece.args.uri: piece.args.stamp for piece in pieces}
    return IndexedInputs(indexes=indexes, skipped=skipped, stamps=stamps)


def known_files(
    indexes: list[FileIndex], config: CleanConfig
) -> tuple[list[FileIndex], dict[str, str]]:
    """The files with a layout; of folders and archives, why the others are left out.

    Raises InputError for a file of no known layout that was named itself, and when all are such.
    """
    named = {storage.absolute(uri) for uri in config.inputs}
    unknown = [file for file in indexes if file.seen.first is not None]
    if unknown and (len(unknown) == len(indexes) or any(file.uri in named for file in unknown)):
        raise InputError(_unknown_layout(unknown[0]))
    skipped = {file.uri: f"first record: {file.seen.first}" for file in unknown}
    return [file for file in indexes if file.seen.first is None], skipped


def _check_encodings(indexes: list[FileIndex], reporter: Reporter) -> None:
    """Raises InputError for a file that is no UTF-8; where some of one is not, that is said."""
    for file in indexes:
        if file.seen.is_foreign:
            raise InputError(f"{file.uri} is not UTF-8: {file.seen.not_utf8}.")
    if damaged := {file.uri: file.seen.not_utf8 for file in indexes if file.seen.not_utf8}:
        reporter.event("clean.not_utf8", files=damaged)


def _unknown_layout(file: FileIndex) -> str:
    nearest = " or ".join(file.seen.nearest)
    return (
        f"{file.uri} has no known layout: its first record holds {file.seen.first}; expected "
        f"fields such as those of {nearest} (`python -m apps.data layouts` shows all): choose one "
        "with --layout, or say with --map what the fields are, as in --map column:dialog=messages."
    )


def _drop_duplicates(ledger: Ledger, decided: Decided, count: Count | None) -> None:
    """Only now is what stays counted for the dashboard: a counter cannot take anything back."""
    for rule, total in decided.totals.items():
        ledger.drop_kept(
            rule, records=total.records, messages=total.messages, num_bytes=total.bytes
        )
        if count:
            count("records_total", total.records, outcome="dropped", rule=rule)
    if count:
        count("records_total", ledger.records.kept, outcome="kept", rule="")


def damage_of(indexes: list[FileIndex]) -> Ledger:
    """What the ranges do not cover: bytes before the records, and files that end in damage."""
    ledger = Ledger()
    for file in indexes:
        ledger.frame(file.head_bytes)
        if file.damage:
            ledger.quarantine("damaged-file", messages=0, num_bytes=0)
    return ledger


def _check_readable(ledger: Ledger, indexes: list[FileIndex], cleaned: list[CleanedRange]) -> None:
    ledger.check()
    total = sum(file.bytes for file in indexes)
    formats = [file.format for file in indexes for _ in file.ranges]
    of_parquet = sum(
        part.ledger.bytes.input
        for part, file_format in zip(cleaned, formats, strict=True)
        if file_format == "parquet"
    )
    if ledger.bytes.input != total + of_parquet:
        raise StorageError(
            f"{ledger.bytes.input - of_parquet:,} bytes were read of {total:,} indexed: an input "
            "file changed during the run; run the same command again."
        )
    quarantined = sum(ledger.records.quarantined.values())
    if not ledger.records.input:
        names = ", ".join(file.uri for file in indexes)
        raise InputError(f"{names} holds no record; expected at least one conversation.")
    if ledger.records.input and quarantined == ledger.records.input:
        reasons = ", ".join(ledger.records.quarantined)
        reasons += "".join(f"; {f.uri}: {f.damage}" for f in indexes if f.damage)
        reasons += "".join(
            f"; {hint}" for why, hint in _HINTS.items() if why in ledger.records.quarantined
        )
        if "bad-utf-8" in ledger.records.quarantined:
            reasons += "".join(f"; {f.uri}: {said}" for f in indexes if (said := f.seen.not_utf8))
        raise InputError(
            f"None of the {quarantined:,} records of the input could be read ({reasons}); expected "
            "conversations in one of the layouts that `python -m apps.data layouts` shows."
        )


def _decide_unit(cleaned: list[CleanedRange], config: CleanConfig) -> Unit[DecideArgs]:
    ranges = tuple(Kept(part.folder, part.kept) for part in cleaned)
    args = DecideArgs(ranges=ranges, rules=config.rules)
    return Unit(stage="decide", name="duplicates", args=args)


def _write(
    config: CleanConfig,
    decided: Decided,
    cleaned: list[CleanedRange],
    reporter: Reporter,
    run_units: RunUnits,
    work: str,
) -> list[Shard]:
    shard_bytes, out = config.shard_mb * _MB, storage.absolute(config.out)
    dropped = {part.folder: part.dropped_bytes for part in cleaned if part.dropped_bytes}
    broken = {part.folder: part.quarantined_bytes for part in cleaned if part.quarantined_bytes}
    units = [
        *shards.kept_units(out, decided.uri, decided.folders, shard_bytes),
        *shards.duplicate_units(out, decided.uri, decided.folders, shard_bytes),
        *shards.aside_units("dropped", out, dropped, shard_bytes),
        *shards.aside_units("quarantine", out, broken, shard_bytes),
    ]
    forget_others(units, work)
    with reporter.progress("write", total=len(units), unit="shards") as bar:
        written = run_units(units, _WRITE, work, lambda _: bar.advance())
    wanted = {storage.join(unit.args.out, unit.args.name) for unit in units}
    for part in ("", schema.DROPPED_DIR, schema.QUARANTINE_DIR):
        remove_other_files(storage.join(out, part) if part else out, wanted, ".parquet")
    return written


def _commit(
    config: CleanConfig,
    ledger: Ledger,
    read: IndexedInputs,
    cleaned: list[CleanedRange],
    written: list[Shard],
) -> None:
    ledger.check()
    kept = {shard.name: shard.file for shard in written if shard.kind == "kept"}
    if (rows := sum(file.rows for file in kept.values())) != ledger.records.kept:
        raise StorageError(
            f"The shards hold {rows:,} conversations and the ledger {ledger.records.kept:,}; "
            f"remove {config.out} and run again."
        )
    out = config.out
    storage.write_json(storage.join(out, schema.LEDGER_NAME), ledger.to_json())
    storage.write_json(storage.join(out, SAMPLES_NAME), _samples(cleaned))
    inputs = {file.uri: file.digest for file in read.indexes}
    damage = {file.uri: file.damage for file in read.indexes if file.damage}
    layouts = {file.uri: list(file.seen.layouts) for file in read.indexes}
    record = lineage.collect(
        inputs=inputs, config=config, damage=damage, layouts=layouts, skipped=read.skipped
    )
    lineage.write(out, record)
    parts = {name: dataclasses.asdict(file) for name, file in kept.items()}
    storage.commit(out, {"shards": parts, "inputs": read.stamps})


def _samples(cleaned: list[CleanedRange]) -> dict[str, list[dict[str, Any]]]:
    merged: dict[str, list[dict[str, Any]]] = {}
    for part in cleaned:
        own = storage.read_json(storage.join(part.folder, "samples.json"))
        for rule, samples in own.items():
            both = sorted([*merged.get(rule, []), *samples], key=lambda sample: sample["order"])
            merged[rule] = both[: clean_range.SAMPLES_PER_RULE]
    return merged


def _report_done(config: CleanConfig, ledger: Ledger, reporter: Reporter) -> None:
    records = ledger.records
    reporter.event(
        "clean.done",
        out=config.out,
        records=records.input,
        kept=records.kept,
        dropped=dict(records.dropped),
        quarantined=dict(records.quarantined),
        trimmed_messages=dict(ledger.messages.trimmed),
        repaired_messages=dict(ledger.repairs),
        layouts=dict(ledger.layouts),
        ignored_fields=dict(ledger.ignored),
    )


def _count(ledger: Ledger, count: Count | None) -> None:
    if count is None:
        return
    for outcome in ("dropped", "quarantined"):
        for rule, amount in ledger.records.of(outcome).items():
            count("records_total", amount, outcome=outcome, rule=rule)
    count("input_bytes_total", ledger.bytes.input)
