"""Full fine-tuning speed of LLaMA-7B and 13B shapes on one GPU, against a padded Trainer.

    python -m benchmarks.gpu_train [--shapes llama-7b llama-13b] [--out gpu_train.json]
    python -m benchmarks.gpu_train --dry-run          # a tiny shape on the CPU: does it all run?

Random weights, rows of 2,048 tokens, bf16, no Ray. For each precision of the moments, tries the
settings that the plan says fit the card, likely fastest first, and keeps the best of all. fp32
weights, gradients and moments are 16 bytes a parameter: 108 GB for 7B, which one H200 holds beside
three rows with only elementwise operations recomputed; bf16 moments (12 bytes) leave room for six.
One H100 (80 GB) needs int8 moments and recomputation for 7B and 208 GB of host memory for 13B; one
H200 takes 13B with int8 moments.

The Trainer has the published recipe (bf16 autocast, fp32 AdamW, gradient checkpointing,
`padding="max_length"`), or where that does not fit, weights and moments in bf16, which is faster.
Bars on one H200: 7B >= 50 % MFU (by 6N + 12 L d s over 989 TFLOP/s), >= 1.7 x the Trainer's real
tokens a second. Needs the packages of requirements.txt less ray, gradio and what serves; runs with
torch 2.11 and transformers 5.17 too.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import psutil
import torch

from apps.train.model import flops, hardware
from apps.train.model.shape import KNOWN, ModelShape
from apps.train.planning import memory, speed
from benchmarks import chat_lengths, peers

HERE = Path(__file__).parent / "contenders"
ROW_TOKENS = 2048
STATES: tuple[memory.OptimizerState, ...] = ("fp32", "bf16", "int8")
WARMUP_STEPS = 3
STEP_ROWS = 16
"""At least so many rows a step on the card; the published batch of 128 conversations on 4 or 8 GPUs
is 12 to 24 packed rows on each."""
MICRO_ROWS = (16, 12, 8, 6, 5, 4, 3, 2, 1)
PASS_ROWS = {"layer": 0.5, "step": 0.3}
"""Rows in whose time weights are cast and gradients summed, whatever the micro-batch: for 7B on one
H200 40 ms a pass with `reshard step`, where a row takes 142 ms (LOG.md, 2026-11-26)."""
OFFLOAD_SHARE = 0.3
"""Speed that the transfers of cpu_offload leave, roughly."""
TRAINER_BYTES = {"fp32": 16, "bf16": 8}
"""A parameter's weights, gradient and moments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One way to run the loop."""

    micro_rows: int
    checkpointing: memory.Checkpointing = "none"
    state: memory.OptimizerState = "fp32"
    reshard: memory.Reshard = "layer"
    cpu_offload: bool = False

    def arguments(self) -> list[str]:
        flags = ["--micro-rows", str(self.micro_rows), "--optimizer-state", self.state]
        flags += ["--activation-checkpointing", self.checkpointing, "--reshard", self.reshard]
        return [*flags, "--cpu-offload"] if self.cpu_offload else flags

    def __str__(self) -> str:
        offload = ", offload" if self.cpu_offload else ""
        return (
            f"{self.micro_rows} rows, recompute {self.checkpointing}, {self.state}, "
            f"reshard {self.reshard}{offload}"
        )

    @property
    def likely_speed(self) -> float:
        """What orders the tries: recomputation and small micro-batches cost time."""
        share = speed.RECOMPUTE_SHARE[self.checkpointing] * (
            OFFLOAD_SHARE if self.cpu_offload else 1
        )
        return share * self.micro_rows / (self.micro_rows + PASS_ROWS[self.reshard])


TINY = replace(
    KNOWN["debug"],
    hidden_size=64,
    num_heads=2,
    num_kv_heads=2,
    head_dim=32,
    intermediate_size=128,
    vocab_size=512,
)
DRY_STEPS, DRY_SCALE = 3, 1 / 32
DRY_SETTINGS = [
    Setting(micro_rows=2),
    Setting(micro_rows=2, checkpointing="selective", state="bf16", reshard="step"),
    Setting(micro_rows=1, checkpointing="full", state="int8"),
    Setting(micro_rows=1, checkpointing="full", cpu_offload=True),
]
"""Together every switch that a card can need."""


def main(argv: list[str] | None = None) -> dict:
    options = parse(argv)
    if not options.dry_run and not torch.cuda.is_available():
        print("gpu_train.py needs a CUDA device and there is none; --dry-run tries it on the CPU")
        return {}
    shapes = {"tiny": TINY} if options.dry_run else {name: KNOWN[name] for name in options.shapes}
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, shape in shapes.items():
            for result in measure(name, shape, scratch, options):
                results[name] = result
                if options.out:  # after each run: what is known outlives a machine taken back
                    Path(options.out).write_text(json.dumps(results, indent=2))
            table(name, results[name])
    if options.dry_run and failed(results["tiny"]):
        sys.exit("the dry run failed: a real one would too")
    if without := [name for name, result in results.items() if unmeasured(result)]:
        sys.exit(f"every try of ours failed for {', '.join(without)}; the reasons are above")
    return results


def failed(result: dict) -> bool:
    return any("error" in row for row in result["tried"] + result["padded_tried"])


def unmeasured(result: dict) -> bool:
    """Was something of ours tried, and nothing came of it?"""
    return bool(result["tried"]) and result["ours"] is None


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    default = ["llama-7b", "llama-13b"]
    parser.add_argument("--shapes", nargs="+", choices=KNOWN, default=default, metavar="SHAPE")
    parser.add_argument("--dry-run", action="store_true", help="a tiny shape on the CPU, 3 steps")
    parser.add_argument("--steps", type=int, default=10, help=f"{WARMUP_STEPS} of them to warm up")
    parser.add_argument("--states", nargs="+", choices=STATES, default=STATES, metavar="STATE")
    parser.add_argument("--tries", type=int, default=2, help="settings tried for each state")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--no-padded", action="store_true", help="leave the Trainer out")
    parser.add_argument("--out", help="JSON file to write")
    options = parser.parse_args(argv)
    if options.steps <= WARMUP_STEPS:
        parser.error(f"--steps is {options.steps}; expected more than {WARMUP_STEPS}, the warm-up")
    return options


def measure(
    name: str, shape: ModelShape, scratch: str, options: argparse.Namespace
) -> Iterator[dict]:
    """The Trainer's rate and our best setting for one shape, after each run of either."""
    model = write_shape(shape, Path(scratch) / name)
    card = None if options.dry_run else this_gpu()
    shared = ["--model", model, "--random-weights", "--out", f"{scratch}/{name}-out"]
    shared += ["--bf16", "--steps", str(options.steps if card else DRY_STEPS)]
    shared += [] if card else ["--scale", str(DRY_SCALE)]
    found = {
        "gpu": card.name if card else "CPU",
        "torch": torch.__version__,
        "lengths": chat_lengths.lengths()[1],
        "ours": None,
        "tried": [],
        "padded": None,
        "padded_tried": [],
    }
    for setting in likely_best(fitting(shape, card, options.states), options.tries):
        flags = [*setting.arguments(), "--accumulation", str(-(-STEP_ROWS // setting.micro_rows))]
        flags += ["--wrap", "layer", *([] if options.no_compile else ["--compile"])]
        ours = contender("train_ours", [*shared, *flags], shape, card, str(setting))
        found["tried"].append(ours)
        found["ours"] = best(found["tried"])
        yield found
    for recipe, flags in [] if options.no_padded else recipes(shape, card):
        padded = contender("train_padded", [*shared, *flags], shape, card, recipe)
        found["padded_tried"].append(padded)
        found["padded"] = best(found["padded_tried"])
        yield found


def best(tried: list[dict]) -> dict | None:
    """The fastest of the runs that did not fail."""
    done = [result for result in tried if "tokens_per_s" in result]
    return max(done, key=lambda result: result["tokens_per_s"], default=None)


def recipes(shape: ModelShape, card: hardware.Accelerator | None) -> list[tuple[str, list[str]]]:
    """How the Trainer runs on the card, by name; without one each way is tried."""
    flags = ["--micro-rows", "4", "--accumulation", "2", "--gradient-checkpointing"]
    published = ("published recipe", flags)
    in_bf16 = ("all state in bf16, fp32 does not fit", [*flags, "--bf16-weights"])
    if card is None:
        return [in_bf16, published]
    state_bytes = TRAINER_BYTES["fp32"] * shape.num_parameters
    return [published if state_bytes <= 0.9 * card.memory_bytes else in_bf16]


def fitting(
    shape: ModelShape,
    card: hardware.Accelerator | None,
    states: Sequence[memory.OptimizerState] = STATES,
) -> list[Setting]:
    """Settings whose memory, by the plan, the card has; likely fastest first.

    Of each kind of recomputation and state the largest micro-batch; less precise moments only
    where they make it larger.
    """
    if card is None:
        return [setting for setting in DRY_SETTINGS if setting.state in states]
    kinds = product(speed.RECOMPUTE_SHARE, states, ("step", "layer"))
    found: dict[tuple, Setting] = {}
    for checkpointing, state, reshard, offload in [
        *[(*kind, False) for kind in kinds],
        *[("full", "fp32", "layer", True) for state in states if state == "fp32"],
    ]:
        for rows in MICRO_ROWS:
            setting = Setting(
                micro_rows=rows,
                checkpointing=checkpointing,
                state=state,
                reshard=reshard,
                cpu_offload=offload,
            )
            if fits(shape, setting, card):
                found.setdefault((checkpointing, reshard, rows, offload), setting)
                break
    return sorted(found.values(), key=lambda setting: setting.likely_speed, reverse=True)


def likely_best(settings: list[Setting], tries: int) -> list[Setting]:
    """The first `tries` settings of each precision of the moments."""
    found = [[s for s in settings if s.state == state][:tries] for state in STATES]
    return [setting for chosen in found for setting in chosen]


def fits(shape: ModelShape, setting: Setting, card: hardware.Accelerator) -> bool:
    """Does the card have the memory, and with offload the host (nothing is checkpointed here)?"""
    on_host = TRAINER_BYTES["fp32"] * shape.num_parameters if setting.cpu_offload else 0
    if on_host > 0.9 * psutil.virtual_memory().available:
        return False
    return memory.fits(shape, setup(setting), card)


def setup(setting: Setting) -> memory.Setup:
    return memory.Setup(
        world_size=1,
        row_tokens=ROW_TOKENS,
        micro_batch_rows=setting.micro_rows,
        accumulation=2,
        activation_checkpointing=setting.checkpointing,
        optimizer_state=setting.state,
        reshard=setting.reshard,
        compiled=True,
        cpu_offload=setting.cpu_offload,
    )


def this_gpu() -> hardware.Accelerator:
    """The card, with the memory that is free on it now."""
    name = torch.cuda.get_device_name()
    known = hardware.recognise(name)
    if known is None:
        sys.exit(f"{name} is not in apps/train/model/hardware.py; add its memory and peak there")
    free_bytes, _ = torch.cuda.mem_get_info()
    return replace(known, memory_bytes=min(free_bytes, known.memory_bytes))


def contender(script: str, arguments: list[str], shape: ModelShape, card, setting: str) -> dict:
    """Rate, MFU and memory of one run, printed too; of a failed one, why."""
    try:
        result = measured(run(script, arguments), shape, card, setting)
    except subprocess.CalledProcessError as error:
        reason = f"exit status {error.returncode}, its reason is above"
        result = {"setting": setting, "error": reason}
    print(f"{script}: {line(result)}", flush=True)
    return result


def measured(found: dict, shape: ModelShape, card, setting: str) -> dict:
    first = WARMUP_STEPS - 1 if card else 0  # the times begin with the second step
    seconds, tokens = found["step_s"][first:], found["step_tokens"][first:]
    rate = sum(tokens) / sum(seconds)
    result = {"setting": setting, "tokens_per_s": rate, "memory_gb": found["memory_bytes"] / 1e9}
    result["step_s"] = found["step_s"]
    if card is not None and card.peak_flops:
        nominal = flops.nominal_flops_per_token(shape, ROW_TOKENS)
        result["mfu"] = flops.mfu(rate, nominal, card.peak_flops)
        if share := found.get("packed_share"):
            result["mfu_packed"] = result["mfu"] * share
    return result


def run(script: str, arguments: list[str]) -> dict:
    """A process of its own for each run, so that none inherits another's GPU memory."""
    text = peers.run(sys.executable, HERE / f"{script}.py", *arguments)
    return json.loads(text.strip().splitlines()[-1])


def write_shape(shape: ModelShape, folder: Path) -> str:
    """A folder with the config of a LLaMA of this shape and no weights."""
    from transformers import LlamaConfig

    config = LlamaConfig(
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        vocab_size=shape.vocab_size,
        tie_word_embeddings=shape.tied_embeddings,
        max_position_embeddings=shape.context_tokens,
    )
    config.save_pretrained(folder)
    return str(folder)


def table(name: str, result: dict) -> None:
    ours, padded = result["ours"], result["padded"]
    rows = [("tried", row) for row in result["tried"]]
    rows += [("padded", row) for row in result["padded_tried"]]
    print(f"{name} on {result['gpu']}, torch {result['torch']}, lengths: {result['lengths']}")
    if not result["tried"]:
        print("  no setting fits the card (and the host)")
    if ours and padded:
        print(f"  ours / padded Trainer  {ours['tokens_per_s'] / padded['tokens_per_s']:.2f} x")
    for label, row in rows:
        print(f"  {label:<8}{line(row)}")


def line(row: dict) -> str:
    if "error" in row:
        return f"{row['setting']}: failed, {row['error'].splitlines()[-1]}"
    mfu = f", {row['mfu']:.1%} MFU" if "mfu" in row else ""
    mfu += f" ({row['mfu_packed']:.1%} by true attention)" if "mfu_packed" in row else ""
    rate, memory_gb = row["tokens_per_s"], row["memory_gb"]
    return f"{row['setting']}: {rate:,.0f} real tokens/s{mfu}, {memory_gb:.1f} GB"


if __name__ == "__main__":
    main()
