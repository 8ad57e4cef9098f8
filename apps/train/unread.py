"""Settings that nothing would read: refused for a run that is to start, and for its plan."""

from apps.common.errors import ConfigError
from apps.train.config import RunConfig

_READ_WITH = {
    "lora": ("rank", "alpha", "dropout", "targets"),
    "rope": ("factor",),
    "faults": ("spike_factor",),
    "metrics": ("sample_prompts", "sample_tokens"),
}
"""settings of a section that another one turns on"""


def check_read(config: RunConfig) -> None:
    """Refuse what was set and nothing would read: `--lora.rank 8` alone trains all weights."""
    samples = config.metrics.sample_every_steps > 0
    owners: tuple[tuple[str, object, bool, str], ...] = (
        ("lora", config.lora, config.adapter == "lora", "--adapter lora"),
        ("rope", config.rope, config.rope.kind != "none", "--rope.kind linear"),
        ("faults", config.faults, config.faults.on_spike != "ignore", "--faults.on-spike skip"),
        ("metrics", config.metrics, samples, "--metrics.sample-every-steps"),
    )
    for section, settings, is_read, switch in owners:
        for name in () if is_read else _READ_WITH[section]:
            value, default = getattr(settings, name), getattr(type(settings)(), name)
            if value != default:
                raise ConfigError(
                    f"{section}.{name} is {value} and nothing reads it without {switch}; give that "
                    f"too, or leave --{section}.{name.replace('_', '-')} out."
                )
