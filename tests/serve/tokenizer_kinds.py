"""The two kinds of tokenizer that models have."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.made import spell_spaces_as_llama

CORPUS = [
    "hello world, the cat sat on the mat",
    "naïve café 你好 世界 🙂",
    "def f(x):\n    return x",
] * 4


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet,
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As LLaMA's: a space is a letter, what the vocabulary lacks is spelled in bytes."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab |= {f"<0x{b:02X}>": 3 + b for b in range(256)}
    for piece in [*"abcdefghijklmnopqrstuvwxyz", "\u2581", "\u2581t", "\u2581th", "th", "he", "é"]:
        vocab[piece] = len(vocab)
    merges = [("\u2581", "t"), ("\u2581t", "h"), ("t", "h"), ("h", "e")]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    spell_spaces_as_llama(tokenizer)
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer
