import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

EOS = 1


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> str:
    """A random LLaMA with grouped queries whose greedy answers wander through the vocabulary."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=160, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        eos_token_id=EOS, bos_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)
