"""Raw chat dumps to clean conversations to packed rows.

python -m apps.data clean dump.json --out clean
python -m apps.data pack clean --tokenizer MODEL --out pack --max-length 2048
ray job submit -- python -m apps.data clean s3://bucket/dumps/*.json --out s3://bucket/clean
"""

import sys

from apps.common import cli, runtime
from apps.common.cli import Command
from apps.common.events import Reporter
from apps.data import clean, pack
from apps.data.config import CleanConfig, PackConfig
from apps.data.sample import SampleConfig, write_sample


def run_clean(config: CleanConfig, reporter: Reporter) -> None:
    resolved, files = clean.prepare(config)
    with runtime.ray_session(num_cpus=config.workers or None):
        from apps.data import pipeline

        run_units = pipeline.ray_units(config.workers)
        clean.run(resolved, files, reporter, run_units, pipeline.count)


def run_pack(config: PackConfig, reporter: Reporter) -> None:
    job = pack.prepare(config)
    info = pack.finished(job)
    if info is None:
        with runtime.ray_session(num_cpus=config.workers or None):
            from apps.data import pipeline

            run_units = pipeline.ray_units(config.workers)
            info = pack.run_pack(job, reporter, run_units, pipeline.count)
    pack.report(reporter, info, config.out)


COMMANDS = {
    "sample": Command(
        config=SampleConfig, run=write_sample, help="write a sample dump to try everything on"
    ),
    "clean": Command(
        config=CleanConfig, run=run_clean, help="clean raw dumps into Parquet conversations"
    ),
    "pack": Command(
        config=PackConfig,
        run=run_pack,
        help="split, tokenize and pack clean conversations into rows for training",
    ),
}

if __name__ == "__main__":
    sys.exit(cli.run("apps.data", COMMANDS))
