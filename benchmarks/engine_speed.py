"""Measures our engine into the four figures that `apps.serve place` needs, and checks them.

    python -m benchmarks.engine_speed 5M --out speeds.yaml
    CRIA_TEST_DATA=... python -m benchmarks.engine_speed 5M --check --seconds 60

Batches of 1 to 32 requests with short and long contexts give the length of a decoding step; single
requests with prompts of 64 to 1,024 tokens give the price of a prompt. `--check` replays a span of
Azure's trace, its lengths divided by 8, at two levels of load, and compares the waiting of real
requests with the simulator's. Timings need a machine that does nothing else.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import yaml

from apps.serve.engine.config import TorchConfig
from apps.serve.engine.protocol import Outbox, Request, SamplingParams, Step
from apps.serve.engine.torch.engine import TorchEngine
from apps.serve.place.arrivals import Arrivals, read_azure
from apps.serve.place.placement import Cluster, Group, Model
from apps.serve.place.simulator import EngineLimits, simulate
from apps.serve.place.speed import Shape, Speed
from benchmarks.serve_model import make_model

LIMITS = EngineLimits(max_running=32, prompt_piece_tokens=256)
SHRINK = 8
VOCABULARY = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One measured step."""

    sequences: int
    context: float
    prompt_tokens: int
    seconds: float


class Watch(Outbox):
    """Of one request: when its tokens came."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s: list[float] = []
        self.done = asyncio.Event()

    def put(self, steps: list[Step]) -> None:
        now_s = time.perf_counter()
        for step in steps:
            self.at_s += [now_s] * len(step.token_ids)
            if step.finish_reason is not None:
                self._loop.call_soon_threadsafe(self.done.set)


async def ask(engine: TorchEngine, prompt: int, output: int, name: str) -> Watch:
    """Prompts differ from their first token on, so that no prefix is reused."""
    rng = np.random.default_rng(abs(hash(name)) % 2**32)
    watch = Watch()
    request = Request(
        id=name,
        prompt_ids=tuple(rng.integers(10, VOCABULARY - 10, prompt).tolist()),
        params=SamplingParams(max_tokens=output, temperature=0.0, ignore_eos=True),
    )
    await engine.submit(request, watch)
    return watch


async def measure(engine: TorchEngine) -> list[Sample]:
    made: list[Sample] = []
    for prompt in (64, 128, 256):
        times_s = []
        for turn in range(5):
            begun_s = time.perf_counter()
            watch = await ask(engine, prompt, 1, f"prompt-{prompt}-{turn}")
            await watch.done.wait()
            times_s.append(watch.at_s[0] - begun_s)
        made.append(Sample(sequences=0, context=0.0, prompt_tokens=prompt, seconds=median(times_s)))
    for batch in (1, 2, 4, 8, 16, 32):
        for prompt in (16, 512):
            names = [f"{batch}-{prompt}-{number}" for number in range(batch)]
            watches = [await ask(engine, prompt, 48, name) for name in names]
            await asyncio.gather(*(watch.done.wait() for watch in watches))
            begun_s = max(watch.at_s[0] for watch in watches)  # from here on all are decoding
            gaps = [
                gap
                for watch in watches
                for start_s, gap in zip(watch.at_s, np.diff(watch.at_s), strict=False)
                if start_s >= begun_s
            ]
            if gaps:
                made.append(
                    Sample(
                        sequences=batch,
                        context=batch * (prompt + 24.0),
                        prompt_tokens=0,
                        seconds=median(gaps),
                    )
                )
    return made


def fit(samples: Sequence[Sample]) -> Speed:
    """Least squares of relative errors; a figure that would be negative is 0."""
    rows = np.array([[1, s.sequences, s.context, s.prompt_tokens] for s in samples])
    seconds = np.array([s.seconds for s in samples])
    kept = list(range(4))
    while True:
        solved, *_ = np.linalg.lstsq(
            rows[:, kept] / seconds[:, None], np.ones(len(seconds)), rcond=None
        )
        if (solved >= 0).all():
            break
        kept.pop(int(solved.argmin()))
    figures = np.zeros(4)
    figures[kept] = solved
    step_s, sequence_s, context_s, prompt_s = figures.tolist()
    return Speed(step_s=step_s, sequence_s=sequence_s, context_s=context_s, prompt_s=prompt_s)


async def replayed(engine: TorchEngine, arrivals: Arrivals) -> tuple[list[float], list[float]]:
    """Seconds to the first and to the last token of every request."""
    begun_s, watches = time.perf_counter(), list[Watch]()
    for number in range(arrivals.num_requests):
        due_s = begun_s + float(arrivals.at_s[number])
        await asyncio.sleep(max(due_s - time.perf_counter(), 0))
        prompt, output = int(arrivals.prompt_tokens[number]), int(arrivals.output_tokens[number])
        watches.append(await ask(engine, prompt, output, f"replay-{number}"))
    await asyncio.gather(*(watch.done.wait() for watch in watches))
    came_s = [begun_s + float(at_s) for at_s in arrivals.at_s]
    first = [watch.at_s[0] - at for watch, at in zip(watches, came_s, strict=True)]
    return first, [watch.at_s[-1] - at for watch, at in zip(watches, came_s, strict=True)]


def shrunk(seconds: float, times: float) -> Arrivals:
    """A span of Azure's trace, lengths divided, so many times as fast."""
    trace = Path(os.environ["CRIA_TEST_DATA"]) / "azure-llm-2023"
    whole = read_azure(str(trace / "AzureLLMInferenceTrace_conv.csv"))
    span = whole.between(600, 600 + seconds * times)
    return Arrivals(
        at_s=span.at_s / times,
        prompt_tokens=np.maximum(span.prompt_tokens // SHRINK, 2),
        output_tokens=np.maximum(span.output_tokens // SHRINK, 1),
        model=span.model,
    )


async def check(engine: TorchEngine, speed: Speed, seconds: float, times: float) -> str:
    arrivals = shrunk(seconds, times)
    first, last = await replayed(engine, arrivals)
    shape = Shape(weights_bytes=1e6, kv_bytes_per_token=1.0, speeds={1: speed}, source="measured")
    served = simulate(
        (Group(tensor=1, pipeline=1, models=(0,)),),
        [Model(name="m", path="", shape=shape)],
        Cluster(num_gpus=1, memory_bytes=1e9),
        arrivals,
        LIMITS,
    )
    cells = [
        f"{name} p{percent}: {np.percentile(real, percent) * 1e3:.0f} ms, simulated "
        f"{np.percentile(made, percent) * 1e3:.0f} "
        f"({np.percentile(made, percent) / np.percentile(real, percent) - 1:+.0%})"
        for name, real, made in (("first", first, served.first_s), ("last", last, served.last_s))
        for percent in (50, 99)
    ]
    return f"{arrivals.num_requests / seconds:.1f} requests/s: " + "; ".join(cells)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=["5M", "135M"])
    parser.add_argument("--out", help="table of speeds to write (YAML)")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=float, nargs="+", default=[1.0, 2.0])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = make_model(Path(folder), arguments.shape)
        config = TorchConfig(path=path, max_running=32, prefill_chunk_tokens=256)
        engine = TorchEngine(config)
        await engine.start()
        try:
            await measure(engine)  # warm: memory touched, kernels made
            samples = await measure(engine)
            speed = fit(samples)
            print(json.dumps({"speed": figures(speed)}))
            for sample in samples:
                made = speed.seconds(sample.sequences, sample.context, sample.prompt_tokens)
                print(
                    f"{sample}: fitted {made * 1e3:.2f} ms, off by {made / sample.seconds - 1:+.0%}"
                )
            for times in arguments.times if arguments.check else ():
                print(await check(engine, speed, arguments.seconds, times), flush=True)
        finally:
            await engine.close()
    if arguments.out:
        row = {"weights_gb": 0.001, "kv_bytes_per_token": 1, "speeds": {"CPU": {1: figures(speed)}}}
        Path(arguments.out).write_text(yaml.safe_dump({"models": {arguments.shape: row}}))


def figures(speed: Speed) -> dict[str, float]:
    """As speeds.yaml has them."""
    return {
        "step_ms": speed.step_s * 1e3,
        "sequence_us": speed.sequence_s * 1e6,
        "context_ns": speed.context_s * 1e9,
        "prompt_us": speed.prompt_s * 1e6,
    }


if __name__ == "__main__":
    asyncio.run(main())
