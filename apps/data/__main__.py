"""Raw chat dumps to clean conversations to packed rows.

python -m apps.data clean dump.json --out clean
python -m apps.data report clean
python -m apps.data view clean --rule blocked_words
python -m apps.data pack clean --tokenizer MODEL --out pack --max-length 2048
python -m apps.data index pack --out passages.db
ray job submit -- python -m apps.data clean s3://bucket/dumps/*.json --out s3://bucket/clean
"""

import contextlib
import sys
from collections.abc import Generator

import apps.common.command.interrupt  # noqa: F401  # pyright: ignore[reportUnusedImport]
from apps.common.command import cli, runtime
from apps.common.command.cli import Command
from apps.common.command.events import Reporter
from apps.common.errors import CriaError
from apps.data import clean, index, layouts, pack, report, view
from apps.data.config import (
    CleanConfig,
    IndexConfig,
    LayoutsConfig,
    PackConfig,
    ReportConfig,
    ViewConfig,
)
from apps.data.sample.sample import SampleConfig, write_sample
from apps.data.units import Count, RunUnits


def run_clean(config: CleanConfig, reporter: Reporter) -> None:
    resolved, files = clean.prepare(config)
    if clean.finished(resolved, files, reporter):
        return
    with _workers(config) as (run_units, count):
        try:
            clean.run(resolved, files, reporter, run_units, count)
        except CriaError:  # the same command elsewhere may have been first, and put its work away
            if not clean.finished(resolved, files, reporter):
                raise


def run_pack(config: PackConfig, reporter: Reporter) -> None:
    job = pack.prepare(config)
    info = pack.finished(job)
    if info is None:
        with _workers(config) as (run_units, count):
            try:
                info = pack.run_pack(job, reporter, run_units, count)
            except CriaError:
                if (info := pack.finished(job)) is None:
                    raise
    pack.report(reporter, info, config.out)


@contextlib.contextmanager
def _workers(config: CleanConfig | PackConfig) -> Generator[tuple[RunUnits, Count]]:
    """Ray's workers, which see the inputs and --out as this machine; a local Ray has CPUs left."""
    num_cpus = max(config.workers, runtime.MIN_LOGICAL_CPUS) if config.workers else None
    with runtime.ray_session(num_cpus=num_cpus):
        from apps.common.command.every_machine import require_shared
        from apps.data import pipeline

        require_shared({uri: uri for uri in config.inputs}, config.out)
        yield pipeline.ray_units(config.workers or pipeline.num_workers()), pipeline.count


COMMANDS = {
    "sample": Command(
        config=SampleConfig,
        run=write_sample,
        help="write a sample dump to try everything on",
        example="--out sample",
    ),
    "clean": Command(
        config=CleanConfig,
        run=run_clean,
        help="clean raw dumps into Parquet conversations",
        example="dump.json --out clean --profile vicuna",
        notes=f"Layouts that are recognised:\n{layouts.described()}",
    ),
    "layouts": Command(
        config=LayoutsConfig,
        run=layouts.show,
        help="show every layout of conversations that clean reads, with an example",
        example="",
    ),
    "pack": Command(
        config=PackConfig,
        run=run_pack,
        help="split, tokenize and pack clean conversations into rows for training",
        example="clean --tokenizer BASE --out pack",
    ),
    "index": Command(
        config=IndexConfig,
        run=index.write_index,
        help="index training data by its runs of words, for the page's `Where did this come from?`",
        example="pack --out passages.db",
    ),
    "report": Command(
        config=ReportConfig,
        run=report.write_report,
        help="write what became of a dump as a page and as JSON",
        example="clean",
    ),
    "view": Command(
        config=ViewConfig,
        run=view.show,
        help="page through conversations",
        example="clean --rule blocked_words",
    ),
}

if __name__ == "__main__":
    sys.exit(cli.run("apps.data", COMMANDS))
