"""Learning rate as a function of the step."""

import math

from apps.train.config import OptimConfig


def learning_rate(step: int, num_steps: int, config: OptimConfig) -> float:
    """Rate of update number `step` (from 0) of `num_steps`: linear warm-up, then the schedule."""
    warmup = math.ceil(config.warmup_fraction * num_steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    done = (step - warmup) / max(num_steps - 1 - warmup, 1)
    shape = 1.0 - done if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return config.lr * (config.final_fraction + (1.0 - config.final_fraction) * shape)
