"""Training speed on CPU against a padded transformers Trainer and TRL's packed SFTTrainer.

    python -m benchmarks.train [--out train.json]

Same model, conversations, threads and precision; each contender in a process of its own, in turns.
Real tokens a second, padding not counted, over the steps after the warm-up. Then how long training
stands still for checkpoints at the default interval, and whether a run killed on the way ends
bit-identical to an undisturbed one. Bars: >= 1.7 x padded, >= 1.5 x TRL, stall <= 5 %, identical.
Lengths are ShareGPT's when CRIA_TEST_DATA is set, scaled down to rows of 512 tokens.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import chat_lengths, peers
from benchmarks.results import save

HERE = Path(__file__).parent / "contenders"
TRL = ["trl==1.16.0", "transformers==5.23.0", f"torch=={torch.__version__.split('+')[0]}"]
SCALE = 0.25
WARMUP_STEPS = 3
MODEL = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 4096,
}
# 16 conversations padded are about 12 packed rows: the published 128 are 96.
CONTENDERS = {
    "ours, packed": ("train_ours.py", ["--accumulation", "3"]),
    "Trainer, padded": ("train_padded.py", ["--accumulation", "4"]),
    "TRL, packed": ("train_trl.py", ["--accumulation", "3"]),
    # TRL lays the rows of a pass end to end, and on a CPU attends over all of them: one row a pass
    # spares it that.
    "TRL, packed, 1 row": ("train_trl.py", ["--micro-rows", "1", "--accumulation", "12"]),
}


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as scratch:
        model = str(Path(scratch) / "model")
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**MODEL)).save_pretrained(model)
        shared = ["--model", model, "--scale", str(SCALE), "--threads", str(options.threads)]
        shared += [] if options.fp32 else ["--bf16"]
        result = speed(shared, scratch, options)
        result |= checkpoint_stall(shared, scratch, options)
        result |= resume(shared, scratch)
    table(result)
    save("train", result, options.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=13, help="optimizer steps of each turn")
    parser.add_argument("--turns", type=int, default=2, help="turns of each contender")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of each contender")
    parser.add_argument("--fp32", action="store_true", help="fp32 in place of bf16")
    parser.add_argument("--stall-steps", type=int, default=60, help="steps of the checkpoint run")
    parser.add_argument("--no-trl", action="store_true", help="leave TRL out (it needs a network)")
    parser.add_argument("--out", help="JSON file to write; results/train.json if not given")
    return parser.parse_args()


def speed(shared: list[str], scratch: str, options: argparse.Namespace) -> dict:
    """Real tokens a second of each contender: median step over all turns."""
    trl = None if options.no_trl else peers.environment("trl-1.16.0", TRL)
    steps: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    tokens: dict[str, float] = {}
    for turn in range(options.turns):
        for name, (script, extra) in CONTENDERS.items():
            python = trl if name.startswith("TRL") else sys.executable
            if python is None:
                continue
            out = f"{scratch}/{script}-{turn}"
            arguments = [*shared, *extra, "--steps", str(options.steps), "--out", out]
            found = last_json(peers.run(python, HERE / script, *arguments))
            steps[name] += found["step_s"][WARMUP_STEPS:]
            tokens[name] = statistics.mean(found["step_tokens"])
    rates = {n: tokens[n] / statistics.median(s) for n, s in steps.items() if s}
    return {
        "lengths": chat_lengths.lengths(SCALE)[1],
        "tokens_per_s": rates,
        "ratios": ratios(rates),
    }


def ratios(rates: dict[str, float]) -> dict[str, float]:
    """Ours over the padded Trainer, and over the faster of TRL's two ways."""
    ours, trl = rates["ours, packed"], [r for n, r in rates.items() if n.startswith("TRL")]
    found = {"ours / Trainer, padded": ours / rates["Trainer, padded"]}
    return found | ({"ours / TRL, its best": ours / max(trl)} if trl else {})


def checkpoint_stall(shared: list[str], scratch: str, options: argparse.Namespace) -> dict:
    """Share of the time that training stands still, checkpoints at the default interval."""
    steps = ["--steps", str(options.stall_steps), "--accumulation", "3"]
    arguments = [*shared, *steps, "--default-interval", "--out", f"{scratch}/stall"]
    found = last_json(peers.run(sys.executable, HERE / "train_ours.py", *arguments))
    return {
        "checkpoints": len(found["stalls_s"]),
        "stall_s": statistics.mean(found["stalls_s"]),
        "stall_share": sum(found["stalls_s"]) / found["seconds"],
    }


def resume(shared: list[str], scratch: str) -> dict:
    """Kill a run two steps after its second checkpoint, resume, compare with one never killed."""
    common = [*shared, "--steps", "12", "--accumulation", "1", "--interval-steps", "3"]
    common += ["--deterministic", "--digest"]
    script = HERE / "train_ours.py"
    whole = last_json(peers.run(sys.executable, script, *common, "--out", f"{scratch}/whole"))
    try:
        peers.run(sys.executable, script, *common, "--out", f"{scratch}/cut", "--stop-after", "8")
    except subprocess.CalledProcessError as error:
        killed = error.returncode
    resumed = last_json(peers.run(sys.executable, script, *common, "--out", f"{scratch}/cut"))
    again = [step for step in resumed["losses"] if step in whole["losses"]]
    return {
        "killed_with": killed,
        "resumed_from_step": resumed["resumed_step"],
        "losses_identical": all(resumed["losses"][s] == whole["losses"][s] for s in again),
        "weights_identical": resumed["weights"] == whole["weights"],
    }


def last_json(text: str) -> dict:
    return json.loads(text.strip().splitlines()[-1])


def table(result: dict) -> None:
    print(f"Lengths: {result['lengths']}, rows of {int(chat_lengths.CUT_TOKENS * SCALE)} tokens")
    for name, ratio in result["ratios"].items():
        print(f"{name:<28}{ratio:8.2f} x")
    for name, rate in result["tokens_per_s"].items():
        print(f"{name:<28}{rate:8,.0f} real tokens/s")
    print(
        f"{'checkpoint stall':<28}{result['stall_share']:8.2%} of the time "
        f"({result['checkpoints']} of {result['stall_s'] * 1000:.0f} ms)"
    )
    same = "losses and weights" if result["weights_identical"] else "NOT the weights"
    print(f"{'resume':<28}from step {result['resumed_from_step']}: {same} bit-identical")


if __name__ == "__main__":
    main()
