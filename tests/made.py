"""Small tokenizers made on the spot, in the layouts that model folders have."""

import io
import json
from pathlib import Path

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = [
    "What is the capital of France? Paris is the capital of France.",
    "USER: how do I print in Python? ASSISTANT: print('hello') prints hello.",
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "Grüße aus Köln, naïve café; 2+2 is 4.\n\n- one\n- two\n",
    "system user assistant INST SYS\n\n",
    "for (int i = 0; i < n; i++) {\n    sum += i;\n}\n",
] * 4

CHAT_TOKENS = {
    "llama": ["<unk>", "<s>", "</s>"],
    "llama-3": [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ],
    "chatml": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "gemma": ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
}
NAMED_TOKENS = {
    "llama": {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    "llama-3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    "chatml": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "gemma": {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
}
_LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level_folder(folder: Path, family: str = "llama", vocab_size: int = 420) -> str:
    """Byte-level BPE; `family` chooses the special tokens (and Llama-3's split for llama-3)."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if family != "llama":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(_LLAMA_3_SPLIT), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=CHAT_TOKENS[family],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _save(folder, tokenizer, "PreTrainedTokenizerFast", NAMED_TOKENS[family])


def sentencepiece_model(vocab_size: int = 400) -> bytes:
    """A SentencePiece BPE model with byte fallback, as LLaMA's."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return model.getvalue()


def sentencepiece_folder(folder: Path, legacy: bool = False, as_llama: bool = True) -> str:
    """A LLaMA-like folder: tokenizer.json converted from SentencePiece, with byte fallback."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model())
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = sorted(
        (
            (vocab[left + right], (left, right))
            for piece in pieces[259:]
            for left, right in ((piece[:i], piece[i:]) for i in range(1, len(piece)))
            if left in vocab and right in vocab
        ),
        key=lambda item: (item[0], vocab[item[1][0]], vocab[item[1][1]]),
    )
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab, [m for _, m in merges], fuse_unk=True, byte_fallback=True)
    )
    spell_spaces_as_llama(tokenizer)
    tokenizer.add_special_tokens(CHAT_TOKENS["llama"])
    cls = "LlamaTokenizer" if as_llama else "PreTrainedTokenizerFast"
    return _save(folder, tokenizer, cls, NAMED_TOKENS["llama"], legacy=legacy)


def spell_spaces_as_llama(tokenizer: tokenizers.Tokenizer) -> None:
    """A space is a letter, one stands before every text, and bytes make up what is unknown."""
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )


def _save(
    folder: Path, tokenizer: tokenizers.Tokenizer, cls: str, named: dict[str, str], **config: object
) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": cls, **named, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)
