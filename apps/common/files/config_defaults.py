"""What transformers assumes of a model where its config.json does not name a key.

Files on the hub leave out what their class has by default: Gemma's say nothing of the tied output
matrix. A key that is there with null is another matter: it says to derive the value. The table
holds what decides sizes, from the configuration classes of the pinned transformers, by test.
"""

from collections.abc import Mapping

_GEMMA = {
    "num_key_value_heads": 4,
    "head_dim": 256,
    "tie_word_embeddings": True,
    "sliding_window": 4096,
}
CONFIG_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "gemma2": {**_GEMMA, "max_position_embeddings": 8192},
    "gemma3_text": {**_GEMMA, "max_position_embeddings": 131072},
    "llama": {"max_position_embeddings": 2048},
    "mistral": {
        "num_key_value_heads": 8,
        "sliding_window": 4096,
        "max_position_embeddings": 131072,
    },
    "mixtral": {
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 131072,
    },
    "olmo2": {"max_position_embeddings": 2048},
    "phi3": {"max_position_embeddings": 4096},
    "qwen2": {"num_key_value_heads": 32, "max_position_embeddings": 32768},
    "qwen3": {"num_key_value_heads": 32, "head_dim": 128, "max_position_embeddings": 32768},
    "qwen3_moe": {
        "num_key_value_heads": 4,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "decoder_sparse_step": 1,
        "max_position_embeddings": 32768,
    },
    "smollm3": {
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "max_position_embeddings": 32768,
    },
}
"""By model type; a key that is not listed has no default, or is derived from others"""
