"""How the model's state is spread over the ranks: what the loop needs, and FSDP2.

The loop only sees `Strategy`; DeepSpeed's is in deepspeed.py.
"""

import math
from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from transformers import PreTrainedModel

from apps.train.batches.micro_batch import MicroBatch
from apps.train.config import RunConfig
from apps.train.model import load
from apps.train.model.beside import BaseBeside
from apps.train.model.loss import supervised_loss
from apps.train.parallel import adamw, fsdp

State = dict[str, dict[str, torch.Tensor]]
"""what a checkpoint holds: `model` and `moments`, each by parameter"""


class PackedModel(torch.nn.Module):
    """A causal language model whose forward pass returns the loss of packed rows."""

    def __init__(self, causal_lm: PreTrainedModel) -> None:
        super().__init__()
        self.causal_lm = causal_lm
        self.base: BaseBeside | None = None
        """what the loss holds the model to in training"""

    def forward(
        self, batch: MicroBatch, scale: float, places: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Cross entropy summed over the supervised tokens, times `scale`; fp32 scalar.

        In training with keep_base, KL(base || model) at those that the base says itself.
        With `places` (P,) in the first row: the likeliest next token at each, (P,).
        """
        output = self.causal_lm.base_model(
            input_ids=batch.ids_BT,
            position_ids=batch.position_ids_BT,
            use_cache=False,
            packing=batch.packing,
        )
        weight = cast(torch.nn.Linear, self.causal_lm.get_output_embeddings()).weight
        softcap = getattr(self.causal_lm.config, "final_logit_softcapping", None)
        hidden = output.last_hidden_state
        if places is not None:
            return (hidden[0, places] @ weight.mT.to(hidden.dtype)).argmax(-1)
        base = self.base.hidden() if self.base is not None and self.training else None
        return supervised_loss(hidden, weight, batch.labels_BT, scale, softcap, base)


def needs_mask(config: RunConfig, causal_lm: PreTrainedModel) -> bool:
    """Whether flash attention cannot compute the run: it knows no fp32 and caps no scores."""
    has_cap = getattr(causal_lm.config, "attn_logit_softcapping", None) is not None
    return config.precision == "fp32" or (has_cap and causal_lm.config.model_type == "gemma2")


class Strategy(Protocol):
    """Sharded model and optimizer."""

    device: torch.device
    causal_lm: PreTrainedModel
    needs_mask: bool
    """attention takes a mask on a GPU too"""

    def loss(self, batch: MicroBatch, scale: float) -> torch.Tensor:
        """Forward pass; a scalar on the device."""
        ...

    def evaluate(self, batch: MicroBatch, scale: float) -> torch.Tensor:
        """Forward pass without gradients."""
        ...

    def next_tokens(self, batch: MicroBatch, places: torch.Tensor) -> torch.Tensor:
        """Likeliest token after each of these places of the only row, (P,), without gradients."""
        ...

    def backward(self, loss: torch.Tensor, *, is_last: bool) -> None:
        """Add the gradients; `is_last` marks the last micro-batch of a step."""
        ...

    def update(self, learning_rate: float) -> float:
        """Clip and step; returns the global gradient norm. Not finite: weights stay as they are."""
        ...

    def discard(self) -> None:
        """Drop the gradients of this step."""
        ...

    def state(self) -> State:
        """Tensors to checkpoint, or to fill from one before `load_state`."""
        ...

    def load_state(self, state: State, updates: int) -> None:
        """Take over a filled `state` after that many updates."""
        ...


class FsdpStrategy:
    """FSDP2 over all ranks of the process group (one rank included)."""

    def __init__(self, config: RunConfig, causal_lm: PreTrainedModel, device: torch.device) -> None:
        self.device = device
        self.causal_lm = causal_lm
        self.needs_mask = needs_mask(config, causal_lm)
        self._config = config
        self._root = PackedModel(causal_lm)
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        self._layers = load.decoder_layers(causal_lm)
        self._units = fsdp.parallelize(self._root, self._layers, mesh, config)
        load.materialize(causal_lm, torch.device("cpu") if config.cpu_offload else device)
        self._trainable = {n: p for n, p in causal_lm.named_parameters() if p.requires_grad}
        self._optimizer = adamw.make_optimizer(
            self._trainable.values(),
            config.optim,
            compiled=config.compiles(device.type) and not config.cpu_offload,
        )

    def keep_base(self, folder: str) -> None:
        """From now on the loss holds the model to its base, whose weights are in `folder`."""
        trained = self._layers[-self._config.top_layers :]
        self._root.base = BaseBeside(self.causal_lm, trained, self._config, folder, self.device)

    def loss(self, batch: MicroBatch, scale: float) -> torch.Tensor:
        return self._root(batch, scale)

    def evaluate(self, batch: MicroBatch, scale: float) -> torch.Tensor:
        return self._without_gradients(batch, scale)

    def next_tokens(self, batch: MicroBatch, places: torch.Tensor) -> torch.Tensor:
        return self._without_gradients(batch, 1.0, places)

    @torch.no_grad()
    def _without_gradients(
        self, batch: MicroBatch, scale: float, places: torch.Tensor | None = None
    ) -> torch.Tensor:
        self._root.eval()
        found = self._root(batch, scale, places)
        self._root.train()
        for unit in self._units:
            unit.reshard()  # the next forward pass must gather again
        return found

    def backward(self, loss: torch.Tensor, *, is_last: bool) -> None:
        fsdp.before_backward(self._units[-1], self._config, is_last=is_last)
        loss.backward()

    def update(self, learning_rate: float) -> float:
        norm = self._gradient_norm()
        if math.isfinite(norm):
            clip_norm = self._config.optim.clip_norm
            if clip_norm and norm > clip_norm:
                torch._foreach_mul_(  # pyright: ignore[reportPrivateImportUsage]
                    self._gradients(), clip_norm / norm
                )
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._optimizer.step()
        self.discard()
        return norm

    def discard(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)

    def state(self) -> State:
        model_state = {n: p.detach() for n, p in self._trainable.items()}
        moments = adamw.moments(self._optimizer, self._trainable)
        return {"model": model_state, "moments": moments}

    def load_state(self, state: State, updates: int) -> None:
        adamw.set_moments(self._optimizer, self._trainable, state["moments"], updates)

    def _gradients(self) -> list[torch.Tensor]:
        return [adamw.local(p.grad) for p in self._trainable.values() if p.grad is not None]

    def _gradient_norm(self) -> float:
        norms = torch._foreach_norm(self._gradients())  # pyright: ignore[reportPrivateImportUsage]
        squared = torch.stack(norms).to(self.device).double().square().sum()
        dist.all_reduce(squared)
        return float(squared.sqrt())
