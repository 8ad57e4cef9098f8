"""A tokenizer of single bytes, and answers that a grammar allows."""

import random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from apps.serve.engine.protocol import Grammar
from apps.serve.model.grammar import GrammarCompiler

EOS = 0


def letters() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"</s>": EOS} | {c: i + 1 for i, c in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


TOKENIZER = letters()
COMPILER = GrammarCompiler(TOKENIZER, 260, (EOS,))


def random_answer(grammar: Grammar, seed: int) -> str:
    """Any allowed token each time, the end as soon as it is allowed."""
    mask, rng, ids = COMPILER(grammar), random.Random(seed), []
    while len(ids) < 400:
        bits = int.from_bytes(mask.bitmask(), "little")
        allowed = [i for i in range(260) if bits >> i & 1]
        assert allowed
        if EOS in allowed:
            break
        ids.append(rng.choice(allowed))
        mask.accept(ids[-1])
    return TOKENIZER.decode(ids)
