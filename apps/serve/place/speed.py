"""How fast a model is on some GPUs, in a few figures, and the table that ships with them.

A step runs every sequence of a batch one token further, and takes a piece of a prompt along:

    step_s + sequence_s x sequences + context_s x their tokens so far + prompt_s x prompt tokens

That is all that a computed table knows. A measured one (`measured.py`) also has what the four leave
out: long contexts, prompts that attend to themselves, the end of a request, and idleness.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from apps.common.errors import ConfigError
from apps.common.files import config as configs

TABLE = Path(__file__).with_name("speeds.yaml")
Figures = Mapping[str, float | Mapping[float, float]]
"""A table's entry of one degree."""
Points = tuple[tuple[float, float], ...]
"""(x, y), ascending in x"""


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
    more_context_s: Points = ()
    """(tokens, seconds): more for each token attended to beyond so many of all sequences together,
    which fit no cache."""
    attention_s: float = 0.0
    """More for each token that a prompt token attends to."""
    ended_s: float = 0.0
    """More for each token of a request that ends: its keys are kept for prompts that begin so."""
    idle_s: Points = ()
    """(pause, seconds): more for the first step after a pause, linear between and level after: the
    caches have gone cold."""

    def seconds(
        self,
        sequences: int,
        context: float,
        prompt_tokens: int,
        prompt_context: float = 0.0,
        rounds: int = 1,
    ) -> float:
        """Of a step, or of some rounds one after another without a prompt.

        Worked example: 10 ms, 0.1 ms a sequence, 0.1 us a token of context, 0.05 ms a prompt token.
        Twenty sequences of 1,000 tokens and a piece of 256: 10 + 2 + 2 + 12.8 = 26.8 ms.
        """
        steps_s = (self.step_s + self.sequence_s * sequences) * rounds
        growing = rounds * context + sequences * rounds * (rounds - 1) / 2
        prompt_s = self.prompt_s * prompt_tokens + self.attention_s * prompt_context
        seconds = steps_s + self.context_s * growing + prompt_s
        for tokens, more_s in self.more_context_s:
            seconds += more_s * beyond(tokens, context, sequences, rounds)
        return seconds

    def cold_s(self, pause_s: float) -> float:
        """Of a first step, beside what it takes otherwise."""
        if not self.idle_s or pause_s <= 0:
            return 0.0
        pauses, seconds = zip((0.0, 0.0), *self.idle_s, strict=True)
        return float(np.interp(pause_s, pauses, seconds))


def beyond(bound: float, first: float, growth: int, rounds: int) -> float:
    """What exceeds a bound, over rounds in which the total grows: first, first + growth, ...

    Worked example: over 100, from 90 by 4 in six rounds: 90 94 98 102 106 110 are 2 + 6 + 10 = 18.
    """
    under = 0
    if first < bound:
        under = rounds if not growth else min(-int((first - bound) // growth), rounds)
    over = rounds - under
    return over * (first + growth * under - bound) + growth * over * (over - 1) / 2


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
    models = _mapping(configs.load_yaml(uri), "models", uri)
    if model not in models:
        raise ConfigError(f"{uri} has no model {model!r}; it has {', '.join(map(str, models))}.")
    where = f"{model} in {uri}"
    row = _mapping(models, model, uri)
    speeds = _mapping(row, "speeds", where)
    if accelerator not in speeds:
        raise ConfigError(
            f"{uri} has no speed of {model} on {accelerator}; it has {', '.join(speeds)}. Measure "
            "one with benchmarks/engine_speed.py and give the file with --speeds."
        )
    by_degree = _mapping(speeds, accelerator, where)
    return Shape(
        weights_bytes=_number(row, "weights_gb") * 1e9,
        kv_bytes_per_token=_number(row, "kv_bytes_per_token"),
        speeds={
            _degree(degree, where): speed_of(cast(Figures, _mapping(by_degree, degree, where)))
            for degree in by_degree
        },
        source=str(row.get("source", uri)),
    )


def _degree(degree: object, where: str) -> int:
    if not isinstance(degree, int) or degree < 1:
        raise ConfigError(f"The speeds of {where} have {degree!r}; expected numbers of GPUs: 1, 2.")
    return degree


def speed_of(figures: Figures) -> Speed:
    """Of a table's entry; the inverse of `figures_of`."""
    if not _number(figures, "step_ms") + _number(figures, "sequence_us"):
        raise ConfigError("step_ms and sequence_us of a table of speeds are 0; a step takes time.")
    return Speed(
        step_s=_number(figures, "step_ms") / 1e3,
        sequence_s=_number(figures, "sequence_us") / 1e6,
        context_s=_number(figures, "context_ns") / 1e9,
        prompt_s=_number(figures, "prompt_us") / 1e6,
        more_context_s=_points(figures, "more_context_ns", 1e9),
        attention_s=_number(figures, "attention_ns", 0.0) / 1e9,
        ended_s=_number(figures, "ended_us", 0.0) / 1e6,
        idle_s=_points(figures, "idle_ms", 1e3),
    )


def figures_of(speed: Speed) -> Figures:
    """As a table has them; what is nothing is left out."""
    more: Figures = {
        "more_context_ns": {tokens: more_s * 1e9 for tokens, more_s in speed.more_context_s},
        "attention_ns": speed.attention_s * 1e9,
        "ended_us": speed.ended_s * 1e6,
        "idle_ms": {pause_s: more_s * 1e3 for pause_s, more_s in speed.idle_s},
    }
    return {
        "step_ms": speed.step_s * 1e3,
        "sequence_us": speed.sequence_s * 1e6,
        "context_ns": speed.context_s * 1e9,
        "prompt_us": speed.prompt_s * 1e6,
        **{name: figure for name, figure in more.items() if figure},
    }


def _number(figures: Mapping[str, object], name: str, default: float | None = None) -> float:
    return _checked(figures.get(name, default), name)


def _checked(figure: object, name: str) -> float:
    if isinstance(figure, int | float) and not isinstance(figure, bool) and 0 <= figure < math.inf:
        return figure
    raise ConfigError(f"{name} of a table of speeds is {figure!r}; expected a number, 0 or more.")


def _points(figures: Figures, name: str, unit: float) -> Points:
    pairs = figures.get(name, {})
    if not isinstance(pairs, Mapping):
        raise ConfigError(f"{name} of a table of speeds is {pairs!r}; expected {{0.05: 3.2}}.")
    checked = ((_checked(x, name), _checked(y, name)) for x, y in pairs.items())
    return tuple(sorted((x, y / unit) for x, y in checked))


def _mapping(content: Mapping[str, object], name: str, where: str) -> Mapping[str, object]:
    part = content.get(name)
    if not isinstance(part, Mapping):
        raise ConfigError(
            f"{where}: {name} is {part!r}; expected a mapping, as in {TABLE.name} of apps/serve."
        )
    return cast(Mapping[str, object], part)
