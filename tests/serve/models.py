"""Model folders: the text side alone, and a small model that was never trained."""

import json
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

CHATML = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_end|>", "<|im_start|>", "<|fim_prefix|>", "<|fim_suffix|>")


def write_text_files(folder: Path, template: str = CHATML) -> Path:
    """Tokenizer (one token per byte), template and settings of a model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*SPECIAL, "<|fim_middle|>"]
    vocabulary = {text: i for i, text in enumerate([*names, *alphabet])}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(names))
    backend.save(str(folder / "tokenizer.json"))
    files = {
        "config.json": {"model_type": "llama", "max_position_embeddings": 512},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
        },
        "generation_config.json": {"eos_token_id": [1]},
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    (folder / "chat_template.jinja").write_text(template)
    return folder


def write_model(folder: Path, seed: int, context_tokens: int = 512) -> str:
    """A model whose likeliest token is never the end of turn: greedy answers are always long."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    write_text_files(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=262, hidden_size=64, intermediate_size=128, num_hidden_layers=8,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=context_tokens,
        eos_token_id=1, bos_token_id=None, initializer_range=0.2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data[config.eos_token_id] = 0
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1]}))
    return str(folder)
