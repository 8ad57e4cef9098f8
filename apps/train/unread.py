"""Settings that nothing would read: refused for a run that is to start, and for its plan."""

from collections.abc import Mapping
from typing import NamedTuple, cast

from apps.common.errors import ConfigError
from apps.common.files.config import flag
from apps.train.config import RunConfig

_LORA = ("rank", "alpha", "dropout", "targets")


class _Section(NamedTuple):
    """Settings that are read only where another one is on."""

    name: str
    settings: object
    fields: tuple[str, ...]
    is_read: bool
    switch: str
    """what turns them on"""


def check_read(config: RunConfig) -> None:
    """Refuse what was set and nothing would read: `--lora.rank 8` alone trains all weights."""
    metrics, faults = config.metrics, config.faults
    has_rope, has_samples = config.rope.kind != "none", metrics.sample_every_steps > 0
    has_lora, has_spikes = config.adapter == "lora", faults.on_spike != "ignore"
    samples = ("sample_prompts", "sample_tokens")
    for section in (
        _Section("lora", config.lora, _LORA, has_lora, "--adapter lora"),
        _Section("rope", config.rope, ("factor",), has_rope, "--rope.kind linear"),
        _Section("faults", faults, ("spike_factor",), has_spikes, "--faults.on-spike skip"),
        _Section("metrics", metrics, samples, has_samples, "--metrics.sample-every-steps"),
    ):
        for name in () if section.is_read else section.fields:
            settings = section.settings
            value, default = getattr(settings, name), getattr(type(settings)(), name)
            if value != default:
                raise ConfigError(
                    f"{section.name}.{name} is {value} and nothing reads it without "
                    f"{section.switch}; give that too, or leave "
                    f"{flag(f'{section.name}.{name}')} at its default, {default!r}."
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
