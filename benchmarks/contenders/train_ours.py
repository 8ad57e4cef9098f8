"""apps.train's loop on packed rows: one rank, no Ray. Run by train.py and gpu_train.py.

Arguments as in train_padded.py, where --micro-rows counts packed rows, and the ones below. Prints
one JSON line; `--stop-after N` ends the process the hard way after step N, as a lost machine would;
`--profile FILE` writes where the time of the last step went, kernel by kernel.
"""

import argparse
import json
import os
import time
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from apps.data.packing.best_fit import best_fit_decreasing
from apps.train.batches.micro_batch import ArrayRows
from apps.train.checkpoint import checkpoint
from apps.train.config import CheckpointConfig, OptimConfig, RunConfig
from apps.train.export import read_weights
from apps.train.loop import worker
from apps.train.loop.loop import Hooks, Loop
from benchmarks.chat_lengths import CUT_TOKENS, conversations
from benchmarks.step_profile import StepProfile


def main(argv: list[str] | None = None) -> dict[str, Any]:
    options = parse(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    config = settings(options)
    rows = packed_rows(options, config.steps * config.global_batch_rows)
    seen = Seen(options.stop_after)
    profile = StepProfile(options.profile, config.steps) if options.profile else None
    hooks = Hooks(on_step=profile.after(seen.step) if profile else seen.step, on_event=seen.event)
    with worker.process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"):
        if options.interval_steps or options.default_interval:
            worker.work(config, rows, hooks=hooks)
        else:
            without_checkpoints(config, rows, hooks, options.random_weights)
        digest = weights_digest(config.out) if options.digest else None
    found = {**seen.summary(), "weights": digest}
    print(json.dumps(found), flush=True)
    return found


def without_checkpoints(
    config: RunConfig, rows: ArrayRows, hooks: Hooks, random_weights: bool
) -> None:
    """The bare loop: a checkpoint of a 7B model is 80 GB that no benchmark of speed wants."""
    device = worker.rank_device(config)
    worker.configure_torch(config)
    strategy = worker.make_strategy(config, device, rows.row_tokens, random_weights=random_weights)
    Loop(
        config=config,
        order=worker.run_order(config, len(rows)),
        train_rows=rows,
        val_rows=None,
        strategy=strategy,
        meter=worker.make_meter(config, strategy, rows.row_tokens),
        hooks=hooks,
    ).run()


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder with config.json (and weights)")
    parser.add_argument("--scale", type=float, default=1.0, help="length scale, 1 is 2,048 tokens")
    parser.add_argument("--micro-rows", type=int, default=4, help="packed rows a forward pass")
    parser.add_argument("--accumulation", type=int, default=3, help="forward passes a step")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 takes all")
    parser.add_argument("--bf16", action="store_true", help="bf16 compute, fp32 otherwise")
    parser.add_argument("--activation-checkpointing", default="none")
    parser.add_argument("--optimizer-state", default="fp32", help="fp32, bf16 or int8 moments")
    parser.add_argument("--wrap", default="root", help="FSDP units: layer or root")
    parser.add_argument("--reshard", default="layer", help="gather and reduce each layer or step")
    parser.add_argument("--cpu-offload", action="store_true", help="state in host memory")
    parser.add_argument("--compile", action="store_true", help="torch.compile each layer")
    parser.add_argument("--random-weights", action="store_true", help="do not read weights")
    parser.add_argument("--out", required=True, help="run folder; an earlier run is resumed")
    parser.add_argument("--interval-steps", type=int, help="steps between checkpoints")
    parser.add_argument("--default-interval", action="store_true", help="Young/Daly checkpoints")
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--stop-after", type=int, help="exit without cleaning up after this step")
    parser.add_argument("--profile", help="file for the kernels of the last step")
    parser.add_argument("--digest", action="store_true", help="report a digest of the weights")
    return parser.parse_args(argv)


def settings(options: argparse.Namespace) -> RunConfig:
    return RunConfig(
        base=options.model,
        data="",
        out=options.out,
        steps=options.steps,
        global_batch_rows=options.micro_rows * options.accumulation,
        micro_batch_rows=options.micro_rows,
        device="cuda" if torch.cuda.is_available() else "cpu",
        precision="bf16" if options.bf16 else "fp32",
        wrap=options.wrap,
        reshard=options.reshard,
        activation_checkpointing=options.activation_checkpointing,
        compile="on" if options.compile else "off",
        deterministic=options.deterministic,
        cpu_offload=options.cpu_offload,
        optim=OptimConfig(lr=2e-5, state=options.optimizer_state),
        checkpoint=CheckpointConfig(interval_steps=options.interval_steps),
    )


def packed_rows(options: argparse.Namespace, num_rows: int) -> ArrayRows:
    """At least `num_rows` packed rows of the benchmark's conversations."""
    with open(os.path.join(options.model, "config.json")) as handle:
        vocab_size = json.load(handle)["vocab_size"]
    row_tokens = int(CUT_TOKENS * options.scale)
    items = conversations(int(num_rows * 1.4), vocab_size, options.scale)
    bins = best_fit_decreasing([len(c.ids) for c in items], row_tokens)
    order = np.random.default_rng(0).permutation(len(bins))
    ids = np.zeros((len(bins), row_tokens), dtype=np.int64)
    mask = np.zeros((len(bins), row_tokens), dtype=bool)
    lengths = []
    for row, chosen in enumerate(order):
        parts = [items[index] for index in bins[chosen]]
        flat = [token for part in parts for token in part.ids]
        labels = [label for part in parts for label in part.labels]
        ids[row, : len(flat)] = flat
        mask[row, : len(flat)] = np.array(labels) >= 0
        lengths.append([len(part.ids) for part in parts])
    return ArrayRows(ids=ids, loss_mask=mask, lengths=lengths)


class Seen:
    """What the hooks saw of the run."""

    def __init__(self, stop_after: int | None) -> None:
        self._stop_after = stop_after
        self._records: list[dict[str, Any]] = []
        self._ends_s: list[float] = []
        self._stalls_s: list[float] = []
        self._resumed_step = 0

    def step(self, record: dict[str, Any]) -> None:
        self._records.append(record)
        self._ends_s.append(time.monotonic())
        if record["step"] == self._stop_after:
            os._exit(9)

    def event(self, name: str, fields: dict[str, Any]) -> None:
        if name == "checkpoint.started":
            self._stalls_s.append(fields["stall_s"])
        if name == "resumed":
            self._resumed_step = fields["step"]

    def summary(self) -> dict[str, Any]:
        ends = self._ends_s
        tokens = [r["tokens_per_s"] * r["step_s"] for r in self._records]
        cuda = torch.cuda.is_available()
        return {
            "step_s": [b - a for a, b in pairwise(ends)],
            "step_tokens": tokens[1:],
            "memory_bytes": torch.cuda.max_memory_allocated() if cuda else 0,
            "losses": {r["step"]: r["loss"] for r in self._records},
            "resumed_step": self._resumed_step,
            "stalls_s": self._stalls_s,
            "seconds": ends[-1] - ends[0],
            "packed_share": self._packed_share(),
        }

    def _packed_share(self) -> float | None:
        """Work with the true attention of packed rows, over the nominal work."""
        shares = [r["mfu_packed"] / r["mfu"] for r in self._records if r.get("mfu")]
        return sum(shares) / len(shares) if shares else None


def weights_digest(run_uri: str) -> str:
    """Digest of the newest checkpoint's weights."""
    import hashlib

    found = checkpoint.newest(run_uri, "digest", print)
    hasher = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(read_weights(found).items()):
        hasher.update(name.encode() + weight.numpy().tobytes())
    return hasher.hexdigest()


if __name__ == "__main__":
    main()
