"""What the demo does, as public command lines."""

import os
import re
import shlex
from dataclasses import dataclass

from apps.common.errors import ConfigError
from apps.common.files import storage

BASE_NAME = "base"
TUNED_NAME = "cria-tuned"

_FOR_ANOTHER_BASE = ("--optim.lr", "2e-5")
"""The published recipe's; the debug preset's is for a model that starts from nothing"""
_FOR_THE_SMALL_BASE = ("--optim.lr", "1e-3", "--epochs", "1.5")
"""At the debug preset's 2e-3 and one epoch some seeds fall short (benchmarks/LOG.md, 2026-11-26)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig:
    """Runs the whole loop: sample, clean, base model, pack, train, export, serve, answer, judge."""

    dir: str = "demo"
    """folder for everything the demo makes"""
    base: str = ""
    """model folder or hub id to fine-tune; empty: a small model is pre-trained from the sample"""
    conversations: int = 7000
    """good conversations in the sample dump"""
    questions: int = 200
    """held-out questions"""
    train_args: str = ""
    """further arguments of `python -m apps.train run`, such as "--epochs 0.1" """
    serve: bool = True
    """go on serving until Ctrl-C; --no-serve ends after a smoke chat"""
    port: int = 8000
    """TCP port of the web page and the API; a free one is taken when it is busy"""

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"--port is {self.port}; expected 1 to 65535.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One public command line and the file that it ends with."""

    name: str
    arguments: tuple[str, ...]
    output: str
    """exists when the step has ended well"""


def steps_before_serving(demo: DemoConfig) -> list[Step]:
    """From the sample dump to the tuned model folder."""
    at = places(demo)
    sample = f"{at['sample']}/sharegpt.json"
    base = demo.base or at["base"]
    steps = [
        Step(
            name="sample",
            arguments=(
                *("apps.data", "sample", "--out", at["sample"]),
                *("--conversations", str(demo.conversations)),
                *("--questions", str(demo.questions)),
            ),
            output=sample,
        ),
        Step(
            name="clean",
            arguments=("apps.data", "clean", sample, "--out", at["clean"], "--profile", "vicuna"),
            output=f"{at['clean']}/{storage.COMMIT_NAME}",
        ),
        Step(
            name="base",
            arguments=(
                *("apps.train", "base", "--text", f"{at['sample']}/text.txt"),
                *("--out", at["base"], "--threads", "2"),
            ),
            output=f"{at['base']}/config.json",
        ),
        Step(
            name="pack",
            arguments=(
                *("apps.data", "pack", at["clean"], "--tokenizer", base, "--out", at["pack"]),
                *("--max-length", "256"),
            ),
            output=f"{at['pack']}/{storage.COMMIT_NAME}",
        ),
        Step(
            name="train",
            arguments=(
                *("apps.train", "run", "--preset", "debug", "--base", base),
                *("--data", at["pack"], "--out", at["run"]),
                *(_FOR_ANOTHER_BASE if demo.base else _FOR_THE_SMALL_BASE),
                *shlex.split(demo.train_args),
            ),
            output=f"{at['run']}/metrics.jsonl",
        ),
        Step(
            name="export",
            arguments=("apps.train", "export", at["run"], "--out", at["model"]),
            output=f"{at['model']}/config.json",
        ),
    ]
    return [step for step in steps if step.name != "base" or not demo.base]


def steps_while_serving(demo: DemoConfig, url: str) -> list[Step]:
    """Ask both models the held-out questions, judge and report."""
    at = places(demo)
    gpt = ("gpt-4o", "--max-usd", "5")
    judge = gpt if os.environ.get("OPENAI_API_KEY") else ("offline",)
    return [
        Step(
            name="answer",
            arguments=(
                *("apps.eval", "answer", "--questions", f"{at['sample']}/questions.jsonl"),
                *("--model", f"{BASE_NAME}={url}/v1", f"{TUNED_NAME}={url}/v1"),
                *("--temperature", "0", "--max-tokens", "96", "--out", at["eval"]),
            ),
            output=f"{at['eval']}/answers/{TUNED_NAME}.jsonl",
        ),
        Step(
            name="judge",
            arguments=(
                *("apps.eval", "judge", at["eval"], "--protocol", "pairwise-swap"),
                *("--judge", *judge),
            ),
            output=f"{at['eval']}/judgments/raw.jsonl",
        ),
        Step(
            name="report",
            arguments=("apps.eval", "report", at["eval"]),
            output=f"{at['eval']}/report.html",
        ),
    ]


def places(demo: DemoConfig) -> dict[str, str]:
    names = ("sample", "clean", "base", "pack", "run", "model", "eval")
    return {name: f"{root(demo)}/{name}" for name in names}


def root(demo: DemoConfig) -> str:
    """Another base model has its own folder, so that neither run disturbs the other."""
    if not demo.base:
        return demo.dir
    return f"{demo.dir}/base-{re.sub(r'[^A-Za-z0-9]+', '-', demo.base).strip('-')}"
