"""Settings that nothing would read: refused for a run that is to start, and for its plan."""

from collections.abc import Mapping
from typing import cast

from apps.common.errors import ConfigError
from apps.train.config import RunConfig


def check_read(config: RunConfig) -> None:
    """Refuse what was set and nothing would read: `--lora.rank 8` alone trains all weights."""
    samples = config.metrics.sample_every_steps > 0
    lora, spikes = config.adapter == "lora", config.faults.on_spike != "ignore"
    owners: tuple[tuple[str, object, bool, str, tuple[str, ...]], ...] = (
        ("lora", config.lora, lora, "--adapter lora", ("rank", "alpha", "dropout", "targets")),
        ("rope", config.rope, config.rope.kind != "none", "--rope.kind linear", ("factor",)),
        ("faults", config.faults, spikes, "--faults.on-spike skip", ("spike_factor",)),
        (
            "metrics",
            config.metrics,
            samples,
            "--metrics.sample-every-steps",
            ("sample_prompts", "sample_tokens"),
        ),
    )
    for section, settings, is_read, switch, names in owners:
        if is_read:
            continue
        for name in names:
            value, default = getattr(settings, name), getattr(type(settings)(), name)
            if value != default:
                raise ConfigError(
                    f"{section}.{name} is {value} and nothing reads it without {switch}; give that "
                    f"too, or leave --{section}.{name.replace('_', '-')} at its default, "
                    f"{default!r}."
                )


def read_part(identity: Mapping[str, object]) -> dict[str, object]:
    """What a run with these settings read of `adapter`, `lora` and `rope`; the rest as it is.

    A run of a version that did not refuse them may have been started with others that meant
    nothing. Worked example: {"adapter": "none", "lora": {"rank": 4}, "rope": {"kind": "none",
    "factor": 4.0}} gives {"adapter": "none", "lora": {}, "rope": {"kind": "none"}}.
    """
    read = dict(identity)
    if read.get("adapter") == "none" and "lora" in read:
        read["lora"] = {}
    rope = cast(Mapping[str, object], read.get("rope") or {})
    if rope.get("kind") == "none":
        read["rope"] = {"kind": "none"}
    return read
