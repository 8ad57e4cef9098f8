"""Small LLaMA folders with weights that were never trained."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from apps.serve.engine.llama.kv_cache import Rows

EOS = 1


def save_llama(tmp_path_factory, *, num_heads: int, num_key_heads: int, head_dim: int = 16) -> str:
    """A random LLaMA whose greedy answers wander through the vocabulary."""
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=head_dim * num_heads, intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=num_heads, num_key_value_heads=num_key_heads,
        max_position_embeddings=512, eos_token_id=EOS, bos_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def rows_of(*spans: tuple[int, int, int], num_decode: int = 0) -> Rows:
    """Spans of (slot, position, tokens); the logits of every row are wanted."""
    rows = Rows(num_decode=num_decode)
    for slot, position, tokens in spans:
        rows.add([(7 * slot + 3 * (position + i)) % 512 for i in range(tokens)], position, slot)
    rows.logit_rows = list(range(len(rows.token_ids)))
    return rows
