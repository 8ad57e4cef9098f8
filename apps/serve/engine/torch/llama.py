"""Forward pass of LLaMA-family models in torch's own operations: for a GPU, and to check against.

One pass takes decode rows (one token of each running request) and prefill rows (chunks of new
prompts) together: the linear layers see one matrix. On a CPU engine/cpu/llama.py does the
same, faster.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from apps.serve.engine.llama.kv_cache import Rows, TorchAttention
from apps.serve.engine.llama.weights import Layer, Network


class Llama:
    """A model folder, loaded for inference."""

    def __init__(self, folder: str | Path, *, device: str, dtype: torch.dtype) -> None:
        self.network = Network(folder, device, dtype, vector_dtype=dtype)
        self.shape, self.device, self.dtype = self.network.shape, device, dtype

    def new_cache(
        self, num_slots: int, num_tokens: int, num_spare: int = 0, max_rows: int = 0
    ) -> TorchAttention:
        """A KV cache of `num_slots` requests of `num_tokens` each, and spare chunks."""
        size = (num_slots, num_tokens, num_spare)
        return TorchAttention(self.shape, *size, self.device, self.dtype)

    @torch.inference_mode()
    def forward(self, rows: Rows, attention: TorchAttention) -> Tensor:
        """Float32 logits [len(rows.logit_rows), vocabulary]; writes the rows' keys and values."""
        attention.plan(rows)
        x = self.network.embedding[torch.tensor(rows.token_ids, device=self.device)]
        for index, layer in enumerate(self.network.layers):
            qkv = self._norm_heads(layer, layer.qkv(self._norm(x, layer.attention_norm)))
            x = x + layer.out(attention(index, qkv))
            y = self._norm(x, layer.ffn_norm)
            x = x + layer.down(F.silu(layer.gate(y)) * layer.up(y))
        x = x[torch.tensor(rows.logit_rows, dtype=torch.long, device=self.device)]
        return self.network.head(self._norm(x, self.network.norm)).float()

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.shape.norm_eps)

    def _norm_heads(self, layer: Layer, qkv: Tensor) -> Tensor:
        """Qwen 3 norms each head's query and key."""
        if layer.q_norm is None or layer.k_norm is None:
            return qkv
        heads, kv_heads, size = self.shape.num_heads, self.shape.num_kv_heads, self.shape.head_dim
        widths = [heads * size, kv_heads * size, kv_heads * size]
        q, k, v = qkv.split(widths, dim=1)
        q = self._norm(q.reshape(-1, size), layer.q_norm).view(-1, widths[0])
        k = self._norm(k.reshape(-1, size), layer.k_norm).view(-1, widths[1])
        return torch.cat([q, k, v], dim=1)
