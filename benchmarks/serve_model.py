"""Random LLaMA folders that every contender of serve.py can load, old transformers included."""

import json
from pathlib import Path

import tokenizers
import torch
from transformers import LlamaConfig, LlamaForCausalLM

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SHAPES = {
    "5M": {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4,
           "num_attention_heads": 4, "vocab_size": 4096},
    "135M": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
             "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
             "tie_word_embeddings": True},
}  # fmt: skip


def make_model(folder: Path, shape: str) -> str:
    """A random model with a tokenizer of letter combinations, readable by old transformers too."""
    settings = SHAPES[shape]
    torch.manual_seed(0)
    config = LlamaConfig(
        **settings, max_position_embeddings=2048, bos_token_id=0, eos_token_id=1,
        initializer_range=0.05,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # the end token never wins
        model.lm_head.weight[1] = 0
    model.save_pretrained(folder)
    make_tokenizer(settings["vocab_size"]).save(str(folder / "tokenizer.json"))
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
        "chat_template": CHAT_TEMPLATE, "model_max_length": 2048,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return str(folder)


def make_tokenizer(vocab_size: int) -> tokenizers.Tokenizer:
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["<s>", "</s>", *alphabet])}
    merges, words = [], list(alphabet)
    for word in words:
        for letter in "etaoinshrdlu":
            if len(vocab) == vocab_size:
                break
            if word in "etaoinshrdlu" or len(word) > 1:
                merges.append((word, letter))
                vocab[word + letter] = len(vocab)
                words.append(word + letter)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer
