"""`clean`: raw dumps to clean conversations, in four steps of units.

    index   pieces of files: digest, where ranges of records begin    index.py
    clean   each range: read, convert, apply the rules                cleaning.py
    decide  once: which conversations repeat others                   duplicates.py
    write   each shard: what stays, in input order                    shards.py

Everything until the commit lies in <out>/_work and is found there again after a kill.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from apps.common.command.events import Reporter
from apps.common.errors import ConfigError, InputError, NotFoundError, StorageError
from apps.common.files import config as configs
from apps.common.files import lineage, schema, storage
from apps.data import clean_range
from apps.data.config import CleanConfig
from apps.data.ledger import Ledger
from apps.data.read import index, source
from apps.data.rules import duplicates
from apps.data.units import (
    Json,
    RunUnits,
    Unit,
    forget_others,
    remove_other_files,
    run_serially,
)
from apps.data.write import shards

WORK_DIR = "_work"
SAMPLES_NAME = "samples.json"
_MB = 1 << 20
_ANY_OUT = {"workers": 0, "out": ""}
"""Settings that do not change what is written."""

Count = Callable[..., None]


def prepare(config: CleanConfig) -> tuple[CleanConfig, list[str]]:
    """Check everything that can be checked without work; the resolved settings and the files.

    Raises InputError (exit code 2) for a missing input, an output folder that cannot be written,
    or one that holds something else.
    """
    config = config.resolved()
    files = source.find(config.inputs)
    _check_out(config)
    try:
        configs.write_resolved(config, config.out)
    except (StorageError, NotFoundError) as error:
        raise InputError(
            f"The output folder {config.out} cannot be written; expected one that this user may "
            f"create or write into. {error}"
        ) from error
    return config, files


def _check_out(config: CleanConfig) -> None:
    names = storage.list_dir(config.out)
    if not names:
        if storage.exists(config.out) and not storage.is_dir(config.out):
            raise InputError(f"--out {config.out} is a file; expected a folder.")
        return
    if configs.RESOLVED_NAME not in names:
        raise InputError(
            f"--out {config.out} is not empty and not from this command; name an empty folder."
        )
    try:
        there = configs.load(CleanConfig, storage.join(config.out, configs.RESOLVED_NAME))
    except ConfigError as error:
        raise InputError(
            f"--out {config.out} holds the output of another command; name an empty folder."
        ) from error
    if _same_work(there) != _same_work(config):
        changed = ", ".join(_differences(there, config))
        raise InputError(
            f"--out {config.out} holds a run with other settings ({changed}); name an empty "
            "folder, or remove this one."
        )


def _same_work(config: CleanConfig) -> CleanConfig:
    inputs = tuple(storage.absolute(uri) for uri in config.inputs)
    return dataclasses.replace(config, inputs=inputs, **_ANY_OUT)


def _differences(a: CleanConfig, b: CleanConfig) -> list[str]:
    found = []
    for left, right, prefix in ((_same_work(a), _same_work(b), ""), (a.rules, b.rules, "rules.")):
        for field in dataclasses.fields(left):
            if getattr(left, field.name) != getattr(right, field.name) and field.name != "rules":
                found.append(prefix + field.name)
    return found


def finished(config: CleanConfig, files: list[str], reporter: Reporter) -> bool:
    """Whether the output is committed already; it is reported again.

    Raises InputError when the inputs are others or changed since.
    """
    committed = storage.read_commit(config.out)
    if committed is None:
        return False
    if committed["inputs"] != {uri: source.size_and_stamp(uri)[1] for uri in files}:
        raise InputError(
            f"--out {config.out} was finished with other input files, or they changed since; name "
            "an empty folder, or remove this one."
        )
    ledger = Ledger.from_json(storage.read_json(storage.join(config.out, schema.LEDGER_NAME)))
    reporter.line(f"{config.out} is already finished.")
    _report_done(config, ledger, reporter)
    return True


def run(
    config: CleanConfig,
    files: list[str],
    reporter: Reporter,
    run_units: RunUnits = run_serially,
    count: Count | None = None,
) -> Json:
    """Clean `files` into `config.out`; returns the ledger. Arguments come from `prepare`."""
    pieces = index.units(files, config.unit_mb * _MB)
    work = storage.join(storage.absolute(config.out), WORK_DIR)
    reporter.event("clean.start", files=len(files), out=config.out)
    with reporter.progress("index", total=len(pieces), unit="pieces") as bar:
        indexes = index.join(run_units(pieces, index.index, work, lambda _: bar.advance()))
    units = _clean_units(indexes, config)
    ledger = _damage(indexes)
    _count(ledger, count)
    with reporter.progress("clean", total=len(units), unit="ranges") as bar:

        def on_done(manifest: Json) -> None:
            own = Ledger.from_json(manifest["ledger"])
            ledger.add(own)
            bar.advance(records=ledger.records.input, kept=ledger.records.kept)
            _count(own, count)

        manifests = run_units(units, clean_range.clean_unit, work, on_done)
    _check_readable(ledger, indexes, manifests)
    decided = run_units([_decide_unit(manifests, config)], duplicates.decide, work)[0]
    _drop_duplicates(ledger, decided, count)
    written = _write(config, decided, manifests, reporter, run_units, work)
    stamps = {piece.args["uri"]: piece.args["stamp"] for piece in pieces}
    return _commit(config, ledger, indexes, manifests, written, stamps, work, reporter)


def _drop_duplicates(ledger: Ledger, decided: Json, count: Count | None) -> None:
    """Only now is what stays counted for the dashboard: a counter cannot take anything back."""
    for rule, total in decided["totals"].items():
        records = total["records"]
        ledger.drop_kept(
            rule, records=records, messages=total["messages"], num_bytes=total["bytes"]
        )
        if count:
            count("records_total", records, outcome="dropped", rule=rule)
    if count:
        count("records_total", ledger.records.kept, outcome="kept", rule="")


def _clean_units(indexes: list[Json], config: CleanConfig) -> list[Unit]:
    rules = configs.to_dict(config.rules)
    units = []
    seen: dict[str, int] = {}
    for found in indexes:
        copy = seen[found["digest"]] = seen.get(found["digest"], -1) + 1
        prefix = found["digest"][:16] + (f"+{copy}" if copy else "")
        for start, end, ordinal, _ in found["ranges"]:
            kind = "row groups" if found["format"] == "parquet" else "bytes"
            args = {
                "uri": found["uri"],
                "data": found.get("data", found["uri"]),
                "digest": found["digest"],
                "format": found["format"],
                "layout": found.get("layout"),
                "start": start,
                "end": end,
                "ordinal": ordinal,
                "prefix": prefix,
                "rules": rules,
            }
            name = f"{found['uri']} {kind} {start:,}-{end:,}"
            units.append(Unit(stage="clean", name=name, args=args))
    return units


def _damage(indexes: list[Json]) -> Ledger:
    """What the ranges do not cover: bytes before the records, and files that end in damage."""
    ledger = Ledger()
    for found in indexes:
        ledger.frame(found["head_bytes"])
        if found["damage"]:
            ledger.quarantine("damaged-file", messages=0, num_bytes=0)
    return ledger


def _check_readable(ledger: Ledger, indexes: list[Json], manifests: list[Json]) -> None:
    ledger.check()
    total = sum(found["bytes"] for found in indexes)
    of_parquet = sum(
        Ledger.from_json(manifest["ledger"]).bytes.input
        for manifest, found in zip(manifests, _index_of_each(indexes), strict=True)
        if found["format"] == "parquet"
    )
    if ledger.bytes.input != total + of_parquet:
        raise StorageError(
            f"{ledger.bytes.input - of_parquet:,} bytes were read of {total:,} indexed: an input "
            "file changed during the run; run the same command again."
        )
    quarantined = sum(ledger.records.quarantined.values())
    if ledger.records.input and quarantined == ledger.records.input:
        reasons = ", ".join(ledger.records.quarantined)
        reasons += "".join(f"; {f['uri']}: {f['damage']}" for f in indexes if f["damage"])
        raise InputError(
            f"None of the {quarantined:,} records of the input could be read ({reasons}); expected "
            '{"id": ..., "conversations": [{"from": "human", "value": ...}, ...]} or '
            '{"messages": [{"role": "user", "content": ...}, ...]}.'
        )


def _index_of_each(indexes: list[Json]) -> list[Json]:
    return [found for found in indexes for _ in found["ranges"]]


def _decide_unit(manifests: list[Json], config: CleanConfig) -> Unit:
    units = [{"folder": m["folder"], "rows": m["kept"]} for m in manifests]
    rules = configs.to_dict(config.rules)
    return Unit(stage="decide", name="duplicates", args={"units": units, "rules": rules})


def _write(
    config: CleanConfig,
    decided: Json,
    manifests: list[Json],
    reporter: Reporter,
    run_units: RunUnits,
    work: str,
) -> list[Json]:
    shard_bytes, out = config.shard_mb * _MB, storage.absolute(config.out)
    units = shards.kept_units(out, decided, shard_bytes)
    units += shards.duplicate_units(out, decided, shard_bytes)
    for kind in (schema.DROPPED_DIR, schema.QUARANTINE_DIR):
        units += shards.aside_units(kind, out, manifests, shard_bytes)
    forget_others(units, work)
    with reporter.progress("write", total=len(units), unit="shards") as bar:
        written = run_units(units, shards.write, work, lambda _: bar.advance())
    wanted = {storage.join(unit.args["out"], unit.args["name"]) for unit in units}
    for part in ("", schema.DROPPED_DIR, schema.QUARANTINE_DIR):
        remove_other_files(storage.join(out, part) if part else out, wanted, ".parquet")
    return written


def _commit(
    config: CleanConfig,
    ledger: Ledger,
    indexes: list[Json],
    manifests: list[Json],
    written: list[Json],
    stamps: dict[str, str],
    work: str,
    reporter: Reporter,
) -> Json:
    ledger.check()
    kept = [part for part in written if part["kind"] == "kept"]
    if (rows := sum(part["rows"] for part in kept)) != ledger.records.kept:
        raise StorageError(
            f"The shards hold {rows:,} conversations and the ledger {ledger.records.kept:,}; "
            f"remove {config.out} and run again."
        )
    out = config.out
    storage.write_json(storage.join(out, schema.LEDGER_NAME), ledger.to_json())
    storage.write_json(storage.join(out, SAMPLES_NAME), _samples(manifests))
    inputs = {found["uri"]: found["digest"] for found in indexes}
    damage = {found["uri"]: found["damage"] for found in indexes if found["damage"]}
    lineage.write(out, lineage.collect(inputs=inputs, config=config, damage=damage))
    parts = {part["name"]: {k: part[k] for k in ("rows", "bytes", "digest")} for part in kept}
    storage.commit(out, {"shards": parts, "inputs": stamps})
    storage.remove_tree(work)
    _report_done(config, ledger, reporter)
    return ledger.to_json()


def _samples(manifests: list[Json]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for manifest in manifests:
        own = storage.read_json(storage.join(manifest["folder"], "samples.json"))
        for rule, samples in own.items():
            merged = sorted(found.get(rule, []) + samples, key=lambda item: item["order"])
            found[rule] = merged[: clean_range.SAMPLES_PER_RULE]
    return found


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
    )


def _count(ledger: Ledger, count: Count | None) -> None:
    if count is None:
        return
    for outcome in ("dropped", "quarantined"):
        amounts: dict[str, Any] = getattr(ledger.records, outcome)
        for rule, amount in amounts.items():
            count("records_total", amount, outcome=outcome, rule=rule)
    count("input_bytes_total", ledger.bytes.input)
