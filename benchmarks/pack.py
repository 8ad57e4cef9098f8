"""Cleaning, splitting and tokenizing against FastChat's chain; row fill on real lengths.

    python benchmarks/pack.py            (--mb 24: megabytes of raw dump)

FastChat runs in an environment of its own: fschat 0.2.36 with what its scripts need. Both sides get
the same generated dump of ChatGPT HTML and the same SentencePiece model with byte fallback, and do
the same work in one process: clean by the published rules, split to 2,048 tokens, token ids with
the loss mask. Rates are raw dump bytes over CPU time, so that cores count alike. With
CRIA_TEST_DATA the fill of 2,048-token rows is taken on real ShareGPT lengths
(imoneoi/multipack_sampler).
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import orjson
import sentencepiece

sys.path.insert(0, str(Path(__file__).parent.parent))

from apps.common.command.events import Reporter
from apps.common.packs import open_pack
from apps.data import clean, pack
from apps.data.config import CleanConfig, PackConfig
from apps.data.packing.best_fit import best_fit_decreasing
from apps.data.units import run_serially
from benchmarks import peers
from benchmarks.results import save
from tests.data import corpus

_FASTCHAT = (
    "fschat==0.2.36",
    "markdownify==0.11.6",
    "beautifulsoup4",
    "transformers==4.46.3",
    "sentencepiece",
    "protobuf",
    "torch==2.13.0",
    "numpy<2",
    "tqdm",
    "psutil",
    "peft==0.13.2",
    "accelerate==1.1.1",
)
_MAX_LENGTH = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=24, help="megabytes of raw dump")
    parser.add_argument("--json", help="file to write; results/pack.json if not given")
    args = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        result = {"fill": fill(), "speed": speed(Path(folder), args.mb)}
    save("pack", result, args.json)
    show(result)


def fill() -> dict[str, float]:
    """Share of token slots in use, and what packing costs."""
    data = os.environ.get("CRIA_TEST_DATA")
    if not data:
        return {}
    lengths = json.loads((Path(data) / "sharegpt-lengths" / "lengths.json").read_text())
    many = lengths * 20
    started = time.process_time()
    best_fit_decreasing(many, _MAX_LENGTH)
    seconds = time.process_time() - started
    return {
        "pad": sum(lengths) / (len(lengths) * _MAX_LENGTH),
        "pack": sum(lengths) / (len(best_fit_decreasing(lengths, _MAX_LENGTH)) * _MAX_LENGTH),
        "segments_per_s": len(many) / seconds,
    }


def speed(folder: Path, num_mb: int) -> dict[str, dict[str, float]]:
    dump = folder / "dump.json"
    num_bytes = write_dump(dump, num_mb << 20)
    tokenizer = make_tokenizer(folder / "tokenizer", dump)
    ours = run_ours(folder, dump, tokenizer, num_bytes)
    script = Path(__file__).with_name("pack_fastchat.py")
    theirs = json.loads(
        peers.run(fastchat(), script, str(dump), tokenizer, str(_MAX_LENGTH)).splitlines()[-1]
    )
    seconds = sum(theirs["seconds"].values())
    theirs = {**theirs.pop("seconds"), **theirs, "mb_per_s": num_bytes / 1e6 / seconds}
    return {"ours": ours, "fastchat": theirs}


def write_dump(path: Path, num_bytes: int) -> int:
    """One JSON array, as the public dumps are."""
    with path.open("wb") as file:
        for i, record in enumerate(corpus.conversations(1 << 30, seed=7, broken=0.0)):
            file.write((b",\n" if i else b"[\n") + orjson.dumps(record))
            if file.tell() > num_bytes:
                break
        file.write(b"\n]\n")
    return path.stat().st_size


def make_tokenizer(folder: Path, dump: Path) -> str:
    """A SentencePiece BPE model with byte fallback of up to 16,000 pieces, and its tokenizer.json.

    The dump's words are few; Python's own sources make the vocabulary a real one.
    """
    folder.mkdir()
    sources = sorted(Path(os.__file__).parent.glob("*.py"))
    lines = [line for source in sources for line in source.read_text().splitlines()]
    for message in corpus.messages(2000, seed=1):
        lines += message.markdown.splitlines()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in lines if line),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=16000,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "model_max_length": 1 << 30}
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **named}))
    peers.run(fastchat(), Path(__file__).with_name("pack_fastchat.py"), "convert", str(folder), "0")
    return str(folder)


def fastchat() -> str:
    return peers.environment("fschat-0.2.36-train", _FASTCHAT)


def run_ours(folder: Path, dump: Path, tokenizer: str, num_bytes: int) -> dict[str, float]:
    """The two commands without Ray: one process, one unit after the other.

    A first run on a small dump loads what FastChat's side loads before its clock starts, too.
    """
    small = folder / "small.json"
    write_dump(small, 1 << 16)
    _chain(folder / "small", small, tokenizer, small.stat().st_size)
    return _chain(folder, dump, tokenizer, num_bytes)


def _chain(folder: Path, dump: Path, tokenizer: str, num_bytes: int) -> dict[str, float]:
    reporter = Reporter("json", stream=open(os.devnull, "w"))  # noqa: SIM115
    cleaning = CleanConfig(inputs=(str(dump),), out=str(folder / "clean"))
    started = time.process_time()
    clean.run(*clean.prepare(cleaning), reporter)
    cleaned = time.process_time()
    packing = PackConfig(
        inputs=(cleaning.out,),
        tokenizer=tokenizer,
        out=str(folder / "pack"),
        max_length=_MAX_LENGTH,
        val_percent=0,
    )
    info = pack.run_pack(pack.prepare(packing), reporter, run_serially)
    packed = time.process_time()
    train = info.splits["train"]
    open_pack(packing.out).verify()
    shutil.rmtree(packing.out)
    return {
        "clean_s": cleaned - started,
        "split_and_tokenize_s": packed - cleaned,
        "mb_per_s": num_bytes / 1e6 / (packed - started),
        "tokens": train.num_tokens,
        "supervised_tokens": train.num_supervised_tokens,
        "fill": train.fill,
    }


def show(result: dict[str, dict]) -> None:
    fills, ours, theirs = result["fill"], result["speed"]["ours"], result["speed"]["fastchat"]
    ratio = ours["mb_per_s"] / theirs["mb_per_s"]
    print(f"\nclean + split + tokenize: {ratio:.1f} x FastChat's chain (bar 2.5)\n")
    print(f"{'raw MB per core-second':30} {'ours':>10} {'FastChat':>10}")
    print(f"{'whole chain (bar 2.5)':30} {ours['mb_per_s']:10.2f} {theirs['mb_per_s']:10.2f}")
    print(f"{'seconds: clean':30} {ours['clean_s']:10.1f} {theirs['clean_s']:10.1f}")
    split = theirs["split_s"] + theirs["tokenize_s"]
    print(f"{'seconds: split and tokenize':30} {ours['split_and_tokenize_s']:10.1f} {split:10.1f}")
    print(f"{'tokens':30} {ours['tokens']:10,} {theirs['tokens']:10,}")
    supervised = ours["supervised_tokens"], theirs["supervised_tokens"]
    print(f"{'supervised tokens':30} {supervised[0]:10,} {supervised[1]:10,}")
    if fills:
        print(f"\nfill of 2,048-token rows: {fills['pack']:.2%} packed (bar 99 %), ", end="")
        print(f"{fills['pad']:.2%} padded; {fills['segments_per_s']:,.0f} segments/s planned")


if __name__ == "__main__":
    main()
