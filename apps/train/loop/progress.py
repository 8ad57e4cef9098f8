"""How far a run is."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Progress:
    """The state of a run beside its tensors; lies in each checkpoint's commit marker."""

    step: int = 0
    updates: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    seconds: float = 0.0
    """of the loop over all attempts: steps (those taken twice too), validation, checkpoints"""
    recent_losses: list[float] = field(default_factory=list)
    """for the spike rule, so that a resumed run judges like an undisturbed one"""
