"""The ranges of the files: the units of `clean`, told which records go on in others."""

import dataclasses
from collections.abc import Sequence

from apps.common.command.events import Reporter
from apps.data import clean_range
from apps.data.clean_range import RangeArgs
from apps.data.config import CleanConfig
from apps.data.read.chains import Chains, Link, RangeLinks, chains_of
from apps.data.read.index import FileIndex
from apps.data.units import Process, RunUnits, Unit

_LINKS = Process(clean_range.find_links, RangeLinks)


def range_units(indexes: list[FileIndex], config: CleanConfig) -> list[Unit[RangeArgs]]:
    """The ranges of every file; a second copy of a file gives its records other ids."""
    units: list[Unit[RangeArgs]] = []
    copies: dict[str, int] = {}
    for file in indexes:
        copy = copies[file.digest] = copies.get(file.digest, -1) + 1
        prefix = file.digest[:16] + (f"+{copy}" if copy else "")
        is_told = file.seen.is_told_to_a_model
        reading = dataclasses.replace(config.reading(), is_told_to_a_model=is_told)
        kind = "row groups" if file.format == "parquet" else "bytes"
        for part in file.ranges:
            args = RangeArgs(
                uri=file.uri,
                data=file.data,
                digest=file.digest,
                format=file.format,
                separation=file.separation,
                start=part.start,
                end=part.end,
                ordinal=part.ordinal,
                prefix=prefix,
                reading=reading,
                rules=config.rules,
            )
            name = f"{file.uri} {kind} {part.start:,}-{part.end:,}"
            units.append(Unit(stage="clean", name=name, args=args))
    return units


def with_chains(
    units: list[Unit[RangeArgs]],
    indexes: list[FileIndex],
    run_units: RunUnits,
    work: str,
    reporter: Reporter,
) -> list[Unit[RangeArgs]]:
    """The ranges of what may be split dumps, told which pieces belong together; read once more for
    that.

    A piece may go on in another file.
    """
    numbered = {file.uri for file in indexes if file.may_be_split}
    if not numbered:
        return units
    places = [i for i, unit in enumerate(units) if unit.args.uri in numbered]
    searched = [dataclasses.replace(units[i], stage="links") for i in places]
    with reporter.progress("join", total=len(searched), unit="ranges") as bar:
        parts = run_units(searched, _LINKS, work, lambda _: bar.advance())
    links = [link for part in parts for link in part.links]
    if not any(link.opens for link in links):  # none begins with an answer, so none goes on
        return units
    chains = chains_of(links)
    told = list(units)
    for i, part in zip(places, parts, strict=True):
        args = _with_links(units[i].args, part.links, chains)
        told[i] = dataclasses.replace(units[i], args=args)
    reporter.event(
        "clean.joined", joined=len(chains.joined), continuations=len(chains.continuations)
    )
    return told


def _with_links(args: RangeArgs, links: Sequence[Link], chains: Chains) -> RangeArgs:
    ids = {link.id for link in links}
    return dataclasses.replace(
        args,
        joins=tuple(chains.joins[key] for key in sorted(ids & chains.joins.keys())),
        joined=tuple(sorted(ids & chains.joined)),
        continuations=tuple(sorted(ids & chains.continuations)),
    )
