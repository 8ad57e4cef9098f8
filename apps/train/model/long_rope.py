"""LongRoPE over packed rows (https://arxiv.org/abs/2402.13753): factors for each conversation.

A model of this kind has short factors for sequences up to `original_max_position_embeddings`
tokens and long ones beyond. transformers chooses once a forward pass, by its longest sequence: in a
micro-batch a long conversation, or a tail of padding, would then turn the short ones too. Here each
token takes the factors of its own conversation, as that conversation alone would get.

Legend: B rows, T tokens a row, F frequencies.
"""

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

KIND = "longrope"


class LongRope(torch.nn.Module):
    """Stands in for a model's rotary embedding of this kind."""

    short_inv_freq: torch.Tensor
    long_inv_freq: torch.Tensor

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.config = config
        compute = ROPE_INIT_FUNCTIONS[KIND]
        self.original_tokens = int(config.rope_parameters["original_max_position_embeddings"])
        short_F, self.attention_scaling = compute(config, seq_len=self.original_tokens)
        long_F, _ = compute(config, seq_len=self.original_tokens + 1)
        self.register_buffer("short_inv_freq", short_F, persistent=False)
        self.register_buffer("long_inv_freq", long_F, persistent=False)

    @torch.no_grad()
    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines (B, T, 2F) in the type of `x`, for positions (B, T)."""
        is_long_BT1 = (conversation_tokens(position_ids) > self.original_tokens)[..., None]
        inv_freq_BTF = torch.where(is_long_BT1, self.long_inv_freq, self.short_inv_freq)
        angles_BTF = position_ids[..., None].float() * inv_freq_BTF
        angles = torch.cat((angles_BTF, angles_BTF), dim=-1)
        cos, sin = angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling
        return cos.to(x.dtype), sin.to(x.dtype)


def conversation_tokens(position_ids_BT: torch.Tensor) -> torch.Tensor:
    """Tokens of the conversation that each token is in, (B, T): positions begin again at 0.

    Positions 0 1 2 0 1 belong to conversations of 3 3 3 2 2 tokens.
    """
    positions_N = position_ids_BT.flatten()
    owner_N = (positions_N == 0).cumsum(0)
    sizes = torch.zeros(len(owner_N) + 1, dtype=positions_N.dtype, device=positions_N.device)
    sizes.scatter_reduce_(0, owner_N, positions_N + 1, "amax")
    return sizes[owner_N].view_as(position_ids_BT)


def by_conversation(model: PreTrainedModel) -> None:
    """Replace the rotary embedding of a LongRoPE model in place; others are left as they are."""
    if model.config.rope_parameters.get("rope_type") == KIND:
        setattr(model.base_model, "rotary_emb", LongRope(model.config))  # noqa: B010 (untyped)
