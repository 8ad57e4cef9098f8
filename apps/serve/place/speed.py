"""How fast a model is on some GPUs, in four figures, and the table that ships with them.

A step runs every sequence of a batch one token further, and takes a piece of a prompt along:

    step_s + sequence_s x sequences + context_s x their tokens so far + prompt_s x prompt tokens

`benchmarks/engine_speed.py` fits the four to an engine; `speeds.yaml` has dated ones for common
models.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from apps.common.errors import ConfigError
from apps.common.files import config as configs

TABLE = Path(__file__).with_name("speeds.yaml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Seconds; of one tensor-parallel group of GPUs."""

    step_s: float
    """A step whatever is in it: weights are read, kernels started."""
    sequence_s: float
    """More for each running sequence."""
    context_s: float
    """More for each token that they attend to."""
    prompt_s: float
    """More for each prompt token."""

    def seconds(self, sequences: int, context: float, prompt_tokens: int) -> float:
        """Of one step.

        Worked example: 10 ms, 0.1 ms a sequence, 0.1 us a token of context, 0.05 ms a prompt token.
        Twenty sequences of 1,000 tokens and a piece of 256: 10 + 2 + 2 + 12.8 = 26.8 ms.
        """
        return (
            self.step_s
            + self.sequence_s * sequences
            + self.context_s * context
            + self.prompt_s * prompt_tokens
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What is placed: its memory, and its speed by tensor-parallel degree."""

    weights_bytes: float
    kv_bytes_per_token: float
    speeds: Mapping[int, Speed]
    source: str


def shape(model: str, accelerator: str, table_uri: str = "") -> Shape:
    """The row of a table; ConfigError names those that it has."""
    uri = table_uri or str(TABLE)
    table = _Table(configs.load_yaml(uri))
    models = table.part("models")
    if model not in models:
        raise ConfigError(f"{uri} has no model {model!r}; it has {', '.join(sorted(models))}.")
    row = cast(Mapping[str, object], models[model])
    speeds = cast(Mapping[str, Mapping[int, Mapping[str, float]]], row["speeds"])
    if accelerator not in speeds:
        raise ConfigError(
            f"{uri} has no speed of {model} on {accelerator}; it has {', '.join(speeds)}. Measure "
            "one with benchmarks/engine_speed.py and give the file with --speeds."
        )
    return Shape(
        weights_bytes=float(cast(float, row["weights_gb"])) * 1e9,
        kv_bytes_per_token=float(cast(float, row["kv_bytes_per_token"])),
        speeds={
            int(degree): Speed(
                step_s=figures["step_ms"] / 1e3,
                sequence_s=figures["sequence_us"] / 1e6,
                context_s=figures["context_ns"] / 1e9,
                prompt_s=figures["prompt_us"] / 1e6,
            )
            for degree, figures in speeds[accelerator].items()
        },
        source=str(row.get("source", uri)),
    )


@dataclass(frozen=True, slots=True)
class _Table:
    content: Mapping[str, object]

    def part(self, name: str) -> Mapping[str, object]:
        part = self.content.get(name)
        if not isinstance(part, Mapping):
            raise ConfigError(f"A table of speeds has no mapping {name!r}; see {TABLE.name}.")
        return cast(Mapping[str, object], part)
