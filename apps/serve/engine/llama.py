"""Forward pass of LLaMA-family models.

One pass takes decode rows (one token of each running request) and prefill rows (chunks of new
prompts) together: the linear layers see one matrix. On a CPU every number a token gets is
independent of what else is in the batch, how the prompt was chunked, and whether a token was
prefilled or decoded, to the last bit (apps/serve/engine/{kernels,weights}.py say how).
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from apps.serve.engine import kernels
from apps.serve.engine.attention import Attention, CompiledAttention, Rows, TorchAttention
from apps.serve.engine.model_folder import read_shape
from apps.serve.engine.weights import Linear, Weights


class Norm:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight, self.eps = weight, eps
        self.is_compiled = weight.device.type == "cpu"

    def __call__(self, x: Tensor) -> Tensor:
        if not self.is_compiled:
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        out = torch.empty_like(x)
        kernels.rms_norm(x.numpy(), self.weight.numpy(), self.eps, out.numpy())
        return out


class Layer:
    """One layer's matrices and norms."""

    def __init__(self, weights: Weights, index: int, eps: float, norm_dtype: torch.dtype) -> None:
        at = f"model.layers.{index}"

        def norm(name: str) -> Norm:
            return Norm(weights.take(f"{at}.{name}.weight", norm_dtype), eps)

        self.attention_norm = norm("input_layernorm")
        self.qkv = weights.linear(*(f"{at}.self_attn.{p}_proj" for p in "qkv"))
        has_head_norms = weights.has(f"{at}.self_attn.q_norm.weight")
        self.q_norm = norm("self_attn.q_norm") if has_head_norms else None
        self.k_norm = norm("self_attn.k_norm") if has_head_norms else None
        self.out = weights.linear(f"{at}.self_attn.o_proj")
        self.ffn_norm = norm("post_attention_layernorm")
        self.gate = weights.linear(f"{at}.mlp.gate_proj")
        self.up = weights.linear(f"{at}.mlp.up_proj")
        self.down = weights.linear(f"{at}.mlp.down_proj")


class Llama:
    """A model folder, loaded for inference. On a CPU all but the matrices is float32."""

    def __init__(self, folder: str | Path, *, device: str, dtype: torch.dtype) -> None:
        self.shape = shape = read_shape(folder)
        self.device, self.dtype = device, dtype
        self.row_dtype = torch.float32 if device == "cpu" else dtype
        weights = Weights(Path(folder), device, dtype)
        self.embedding = weights.take("model.embed_tokens.weight")
        self.layers = [
            Layer(weights, i, shape.norm_eps, self.row_dtype) for i in range(shape.num_layers)
        ]
        self.norm = Norm(weights.take("model.norm.weight", self.row_dtype), shape.norm_eps)
        has_head = weights.has("lm_head.weight") and not shape.is_tied
        self.head = weights.linear("lm_head") if has_head else Linear(self.embedding)

    def new_cache(self, num_slots: int, num_tokens: int, num_spare: int = 0) -> Attention:
        """A KV cache of `num_slots` requests of `num_tokens` each, and spare chunks."""
        size = (self.shape, num_slots, num_tokens, num_spare)
        if self.device == "cpu":
            return CompiledAttention(*size)
        return TorchAttention(*size, self.device, self.dtype)

    @torch.inference_mode()
    def forward(self, rows: Rows, attention: Attention) -> Tensor:
        """Float32 logits [len(rows.logit_rows), vocabulary]; writes the rows' keys and values."""
        attention.plan(rows)
        x = self.embedding[torch.tensor(rows.token_ids, device=self.device)].to(self.row_dtype)
        for index, layer in enumerate(self.layers):
            qkv = layer.qkv(layer.attention_norm(x))
            if layer.q_norm is not None:
                qkv = self._norm_heads(layer, qkv)
            x = layer.out.plus(attention(index, qkv), x)
            y = layer.ffn_norm(x)
            x = layer.down.plus(layer.up.times(y, layer.gate.silu(y)), x)
        if len(rows.logit_rows) < len(rows.token_ids):
            x = x[torch.tensor(rows.logit_rows, dtype=torch.long, device=self.device)]
        return self.head(self.norm(x)).float()

    def _norm_heads(self, layer: Layer, qkv: Tensor) -> Tensor:
        """Qwen 3 norms each head's query and key."""
        heads, kv_heads, size = self.shape.num_heads, self.shape.num_kv_heads, self.shape.head_dim
        widths = [heads * size, kv_heads * size, kv_heads * size]
        q, k, v = qkv.split(widths, dim=1)
        q, k = layer.q_norm(q.reshape(-1, size)), layer.k_norm(k.reshape(-1, size))
        return torch.cat([q.view(-1, widths[0]), k.view(-1, widths[1]), v], dim=1)
