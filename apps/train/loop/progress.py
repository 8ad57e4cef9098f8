"""How far a run is."""

import math
from collections.abc import Mapping
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
    lost_s: float = 0.0
    """of those, of steps that were taken again, because no checkpoint had them yet"""
    recent_losses: list[float] = field(default_factory=list)
    """for the spike rule, so that a resumed run judges like an undisturbed one"""
    best_val_loss: float | None = None
    """None before the first validation"""
    best_step: int = 0
    """the step it belongs to"""
    num_worse: int = 0
    """validations since then, none of them better"""

    @classmethod
    def of(cls, marker: Mapping[str, object]) -> "Progress":
        """What a checkpoint's marker says; an older one may not say everything."""
        progress = cls()
        for name in vars(progress).keys() & marker.keys():
            setattr(progress, name, marker[name])
        return progress

    def forget_validations(self) -> None:
        """The next validation is the first: those before were over other rows."""
        self.best_val_loss, self.best_step, self.num_worse = None, 0, 0

    def validated(self, val_loss: float) -> bool:
        """Note a validation after `step`; is it the best so far? One that is no number is not."""
        best = math.inf if self.best_val_loss is None else self.best_val_loss
        if val_loss < best:
            self.best_val_loss, self.best_step, self.num_worse = val_loss, self.step, 0
            return True
        self.num_worse += 1
        return False
