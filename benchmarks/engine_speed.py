"""Measures our engine into the figures that `apps.serve place` needs, and checks them.

    python -m benchmarks.engine_speed runs/vicuna/model --threads 1 2 --out speeds.yaml
    CRIA_TEST_DATA=... chrt -r 5 python -m benchmarks.engine_speed 5M --times 1 2 --seconds 60

The model is a folder, or a random one of 5M or 135M parameters; its row has the folder's name.
Requests of made-up lengths, one to sixteen at once, and some after pauses, tell what a step takes.
`--times` replays a span of Azure's trace, its lengths divided by 8 (for 135M by 32), so many times
as fast, and compares what real requests waited with what the simulator says. The machine's speed
changes within minutes where others share it, so the engine is measured before and after each
replay, and the simulator takes both together. `chrt -r 5` (as root) keeps other work from its core:
without it a step beside busy processes waits some 4 ms for its turn, again and again.
"""

import argparse
import asyncio
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from apps.common.files.model_settings import stored_tensors, weight_files
from apps.serve.engine.config import TorchConfig
from apps.serve.engine.llama.model_folder import read_shape
from apps.serve.place.arrivals import Arrivals, read_azure
from apps.serve.place.measured import MeasuredStep, expected_s, fitted
from apps.serve.place.placement import Cluster, Group, Model
from apps.serve.place.simulator import EngineLimits, Served, simulate
from apps.serve.place.speed import Shape, Speed, figures_of
from benchmarks.engine_steps import WatchedEngine, ask, profile, request
from benchmarks.serve_model import make_model

LIMITS = EngineLimits(max_running=32, prompt_piece_tokens=256)
SHRINK = {"5M": 8, "135M": 32}
LONGEST_TOKENS = 12_800
"""Of a prompt of the trace, before it is shrunk; the rest of a longer one is left out, and what
fills more than half of the model's context."""
KINDS: dict[str, Callable[[MeasuredStep], bool]] = {
    "one sequence": lambda step: step.sequences == 1 and not step.prompt_tokens,
    "more sequences": lambda step: step.sequences > 1 and not step.prompt_tokens,
    "with a prompt": lambda step: step.prompt_tokens > 0 and not step.pause_s,
    "after a pause": lambda step: step.pause_s > 0,
}


def shrunk(seconds: float, times: float, by: int, longest: int) -> Arrivals:
    """A span of Azure's trace, lengths divided, prompts of up to `longest` tokens then, so many
    times as fast."""
    trace = Path(os.environ["CRIA_TEST_DATA"]) / "azure-llm-2023"
    whole = read_azure(str(trace / "AzureLLMInferenceTrace_conv.csv"))
    span = whole.between(600, 600 + seconds * times)
    return Arrivals(
        at_s=span.at_s / times,
        prompt_tokens=np.clip(span.prompt_tokens // by, 2, longest),
        output_tokens=np.maximum(span.output_tokens // by, 1),
        model=span.model,
    )


async def replayed(
    engine: WatchedEngine, arrivals: Arrivals, rng: np.random.Generator
) -> tuple[Arrivals, Served, list[MeasuredStep]]:
    """When the requests really came, what they got, and the engine's steps meanwhile."""
    lengths = zip(arrivals.prompt_tokens.tolist(), arrivals.output_tokens.tolist(), strict=True)
    vocabulary = engine.info.vocab_size
    requests = [request(rng, vocabulary, prompt, output) for prompt, output in lengths]
    begun_s, watches = time.perf_counter() + 0.5, []
    for at_s, one in zip(arrivals.at_s.tolist(), requests, strict=True):
        await asyncio.sleep(max(begun_s + at_s - time.perf_counter(), 0))
        watches.append(await ask(engine, one))
    await asyncio.gather(*(watch.done.wait() for watch in watches))
    asked_s = np.array([watch.asked_s for watch in watches])
    came = Arrivals(
        at_s=asked_s - begun_s,
        prompt_tokens=arrivals.prompt_tokens,
        output_tokens=arrivals.output_tokens,
        model=arrivals.model,
    )
    served = Served(
        first_s=np.array([watch.at_s[0] for watch in watches]) - asked_s,
        last_s=np.array([watch.at_s[-1] for watch in watches]) - asked_s,
        output_tokens=arrivals.output_tokens,
    )
    return came, served, engine.taken()


def simulated(speed: Speed, arrivals: Arrivals) -> Served:
    shape = Shape(weights_bytes=1e6, kv_bytes_per_token=1.0, speeds={1: speed}, source="measured")
    groups = (Group(tensor=1, pipeline=1, models=(0,)),)
    models = [Model(name="m", path="", shape=shape)]
    return simulate(groups, models, Cluster(num_gpus=1, memory_bytes=1e9), arrivals, LIMITS)


async def check(
    engine: WatchedEngine, times: float, seconds: float, profile_s: float, by: int, longest: int
) -> None:
    rng = np.random.default_rng(int(1000 * times))
    before = await profile(engine, rng, profile_s, longest)
    came, real, steps = await replayed(engine, shrunk(seconds, times, by, longest), rng)
    after = await profile(engine, rng, profile_s, longest)
    both = [*before, *after]
    speed = fitted(both)
    busy = sum(step.seconds for step in steps) / seconds
    print(f"{times:g} times: {came.num_requests / seconds:.2f} requests/s, busy {busy:.0%}")
    drift = _over(fitted(after), both) / _over(fitted(before), both) - 1
    print(f"slower after the replay than before: {drift:+.1%}; {figures_of(speed)}")
    for name, is_kind in KINDS.items():
        there = [step for step in steps if is_kind(step)]
        if there:
            took_s = sum(step.seconds for step in there)
            off = _over(speed, there) / took_s - 1
            print(f"  {len(there)} steps {name}: {took_s / len(there) * 1e3:.2f} ms, {off:+.1%}")
    made = simulated(speed, came)
    for name, ours, theirs in (
        ("first", real.first_s, made.first_s),
        ("last", real.last_s, made.last_s),
    ):
        print(f"  {name} token: {_compared(ours, theirs)}", flush=True)


def _over(speed: Speed, steps: Sequence[MeasuredStep]) -> float:
    return sum(expected_s(speed, step) for step in steps)


def _compared(real: NDArray[np.float64], made: NDArray[np.float64]) -> str:
    pairs = [(p, np.percentile(real, p) * 1e3, np.percentile(made, p) * 1e3) for p in (50, 99)]
    return "; ".join(
        f"p{percent} {was:.1f} ms, simulated {said:.1f} ({said / was - 1:+.1%})"
        for percent, was, said in pairs
    )


async def measured(arguments: argparse.Namespace, path: str, threads: int) -> Speed | None:
    """The replays that are asked for, and with --out the figures."""
    config = TorchConfig(path=path, max_running=32, prefill_chunk_tokens=256, num_threads=threads)
    engine = WatchedEngine(config)
    await engine.start()
    try:
        rng, by = np.random.default_rng(0), SHRINK.get(arguments.model, 8)
        longest = min(LONGEST_TOKENS // by, engine.info.context_tokens // 2)
        await profile(engine, rng, arguments.profile_s, longest)  # warm: memory is touched
        for times in arguments.times:
            await check(engine, times, arguments.seconds, arguments.profile_s, by, longest)
        if not arguments.out:
            return None
        return fitted(await profile(engine, rng, arguments.profile_s, longest))
    finally:
        await engine.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="5M, 135M or a model folder")
    parser.add_argument("--out", help="table of speeds to write (YAML)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--times", type=float, nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--profile-s", type=float, default=15.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model
        if path in SHRINK:
            path = make_model(Path(folder), path)
        speeds = {
            threads: await measured(arguments, path, threads) for threads in arguments.threads
        }
        if arguments.out:
            known = {threads: speed for threads, speed in speeds.items() if speed}
            _write(arguments.out, Path(arguments.model).name, path, known)


def weights_bytes(folder: str) -> int:
    """What the engine holds on a CPU: float32, whatever the files have, and the output matrix in an
    order of its own, also where it is the embedding."""
    sizes = read_shape(folder)
    files = {Path(folder) / file for file in weight_files(folder).values()}
    tensors = {name: shape for file in files for name, (_, shape) in stored_tensors(file).items()}
    tensors["lm_head.weight"] = [sizes.vocab_size, sizes.hidden_size]
    return 4 * sum(math.prod(shape) for shape in tensors.values())


def _write(uri: str, name: str, folder: str, speeds: Mapping[int, Speed]) -> None:
    """Keys and values are float32."""
    sizes = read_shape(folder)
    row = {
        "weights_gb": weights_bytes(folder) / 1e9,
        "kv_bytes_per_token": sizes.kv_bytes_per_token,
        "source": f"measured by benchmarks/engine_speed.py, {date.today()}",
        "speeds": {"CPU": {threads: figures_of(speed) for threads, speed in speeds.items()}},
    }
    Path(uri).write_text(yaml.safe_dump({"models": {name: row}}))


if __name__ == "__main__":
    asyncio.run(main())
