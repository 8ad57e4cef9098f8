"""The base beside the model that is trained from it: what it would have said.

Where only the last decoder layers are trained, model and base differ in these alone. Copies of the
base's are fed what the trained ones are fed, so that the base's last hidden states cost no second
pass through what lies below.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from apps.train.config import RunConfig
from apps.train.model import load
from apps.train.model.loss import BaseHidden
from apps.train.model.stored import sources


class BaseBeside:
    """Copies of the base's last layers, whole on every rank, frozen, in the compute type."""

    def __init__(
        self,
        causal_lm: PreTrainedModel,
        trained: list[torch.nn.Module],
        config: RunConfig,
        folder: str,
        device: torch.device,
    ) -> None:
        """`trained`: the last layers of `causal_lm`; `folder`: that of the base, with weights."""
        self._weight = config.keep_base
        self._layers = _read_layers(causal_lm, config, folder, device)
        self._norm = cast(torch.nn.Module, causal_lm.base_model.norm)
        self._fed: list[tuple[torch.Tensor, Mapping[str, Any]]] = []
        for layer in trained:
            layer.register_forward_pre_hook(self._keep_inputs, with_kwargs=True)

    @torch.no_grad()
    def hidden(self) -> BaseHidden:
        """The base's last hidden states for what the model, in training mode, was just given.

        To be asked for once a forward pass, inside that of the FSDP root: the last norm is shared.
        """
        hidden, _ = self._fed[0]
        for layer, (_, settings) in zip(self._layers, self._fed, strict=True):
            hidden = layer(hidden, **settings)
        self._fed.clear()
        return BaseHidden(self._norm(hidden), self._weight)

    def _keep_inputs(
        self, layer: torch.nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]
    ) -> None:
        """Layers of one model may be told other positions and windows."""
        if layer.training:
            self._fed.append((args[0].detach(), kwargs))


def _read_layers(
    causal_lm: PreTrainedModel, config: RunConfig, folder: str, device: torch.device
) -> list[torch.nn.Module]:
    base = load.build_on_meta(causal_lm.config)
    stored = sources(folder, base.config, {n: p.shape for n, p in base.named_parameters()})
    layers = load.decoder_layers(base)[-config.top_layers :]
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    for layer in layers:
        layer.to(dtype).to_empty(device=device).requires_grad_(False)
    for name, parameter in base.named_parameters():
        if not parameter.is_meta:
            parameter.copy_(stored[name].rows(0, parameter.shape[0]))
    return layers
