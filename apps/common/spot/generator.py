"""Made-up availability: zones whose machines come and go in spells of stated mean lengths."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apps.common.errors import ConfigError
from apps.common.files.config import above_zero
from apps.common.spot.trace import Market


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratorConfig:
    """Spells are Weibull: shape 1 is memoryless, below 1 has many short spells and a few long."""

    zones: int = 3
    """zones, independent of each other"""
    up_h: float = 4.0
    """mean hours that a zone has machines"""
    down_h: float = 3.0
    """mean hours that it has none"""
    shape: float = 0.6
    """of both; public traces are near 0.5 to 0.7"""
    hours: float = 1440.0
    """length of the trace"""
    tick_s: float = 600.0
    """seconds between two looks"""
    seed: int = 0

    def __post_init__(self) -> None:
        above_zero(self, "generator.", "zones", "up_h", "down_h", "shape", "hours", "tick_s")
        if self.shape < 0.05 or self.seed < 0:
            raise ConfigError(
                f"generator.shape is {self.shape:g} and generator.seed {self.seed}; expected a "
                "shape of at least 0.05 and a seed of 0 or more."
            )
        if self.hours * 3600 < self.tick_s:
            raise ConfigError(
                f"generator.hours is {self.hours:g}, less than one tick of {self.tick_s:g} s; "
                "give more hours or shorter ticks."
            )


def generate(config: GeneratorConfig) -> Market:
    """The same settings give the same market."""
    rng = np.random.default_rng(config.seed)
    num_ticks = int(config.hours * 3600 / config.tick_s)
    return Market(
        name="generated",
        tick_s=config.tick_s,
        zones=tuple(f"zone-{number}" for number in range(config.zones)),
        counts=np.stack([_zone(config, num_ticks, rng) for _ in range(config.zones)]),
    )


def _zone(config: GeneratorConfig, num_ticks: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Begins up as often as it is up."""
    gamma = _mean_of_weibull(config.shape)
    means_s = {True: config.up_h * 3600 / gamma, False: config.down_h * 3600 / gamma}
    up = np.empty(num_ticks, dtype=np.int64)
    is_up = bool(rng.random() < config.up_h / (config.up_h + config.down_h))
    at_s = 0.0
    while at_s < num_ticks * config.tick_s:
        end_s = at_s + means_s[is_up] * float(rng.weibull(config.shape))
        up[round(at_s / config.tick_s) : round(end_s / config.tick_s)] = is_up
        at_s, is_up = end_s, not is_up
    return up


def _mean_of_weibull(shape: float) -> float:
    """Of scale 1: gamma(1 + 1 / shape)."""
    return math.gamma(1 + 1 / shape)
