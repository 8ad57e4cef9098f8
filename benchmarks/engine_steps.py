"""Our engine, watched step by step: what was in each, and how long it took."""

import asyncio
import time
from collections.abc import Sequence as Many

import numpy as np

from apps.serve.engine.config import TorchConfig
from apps.serve.engine.protocol import Outbox, Request, SamplingParams, Step
from apps.serve.engine.torch.engine import TorchEngine
from apps.serve.engine.torch.scheduler import Batch, Scheduler, Sequence
from apps.serve.place.measured import MeasuredStep

SHORT_S = 0.002
"""A shorter wait is no pause."""
PAUSES_S = (0.01, 0.03, 0.1, 0.3, 1.0)


class WatchedScheduler(Scheduler):
    """A step lasts from the one before, or from the arrival that ended a pause, to its own end."""

    def __init__(self, config: TorchConfig) -> None:
        super().__init__(config)
        self.steps: list[MeasuredStep] = []
        self._arrived_s = self._begun_s = self._pause_s = 0.0
        self._planned: tuple[int, int, int, int] | None = None
        self._ended_tokens = 0

    def submit(self, sequence: Sequence) -> None:
        self._arrived_s = time.perf_counter()
        super().submit(sequence)

    def wait_for_work(self) -> bool:
        ended_s = time.perf_counter()
        self._keep(ended_s)
        goes_on = super().wait_for_work()
        self._begun_s, self._pause_s = ended_s, 0.0
        if self._arrived_s - ended_s > SHORT_S and time.perf_counter() - ended_s > SHORT_S:
            self._begun_s, self._pause_s = self._arrived_s, self._arrived_s - ended_s
        return goes_on

    def _keep(self, ended_s: float) -> None:
        if self._planned is not None:
            sequences, context, prompt_tokens, prompt_context = self._planned
            step = MeasuredStep(
                seconds=ended_s - self._begun_s,
                sequences=sequences,
                context=context,
                prompt_tokens=prompt_tokens,
                prompt_context=prompt_context,
                ended_tokens=self._ended_tokens,
                pause_s=self._pause_s,
            )
            self.steps.append(step)
        self._planned, self._ended_tokens = None, 0

    def plan(self) -> Batch:
        batch = super().plan()
        rows = batch.rows
        running = rows.num_decode
        attended = [position + 1 for position in rows.positions]
        if attended:
            prompt_tokens = len(attended) - running
            self._planned = (
                running, sum(attended[:running]), prompt_tokens, sum(attended[running:]),
            )  # fmt: skip
        return batch

    def finish(self, sequence: Sequence) -> None:
        self._ended_tokens += sequence.num_computed
        super().finish(sequence)


class WatchedEngine(TorchEngine):
    def __init__(self, config: TorchConfig) -> None:
        super().__init__(config)
        self._scheduler: WatchedScheduler = WatchedScheduler(config)

    def taken(self) -> list[MeasuredStep]:
        """The steps since the last call."""
        steps, self._scheduler.steps = self._scheduler.steps, []
        return steps


class Watch(Outbox):
    """Of one request: when its tokens came."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_s = 0.0
        self.at_s: list[float] = []
        self.done = asyncio.Event()

    def put(self, steps: list[Step]) -> None:
        now_s = time.perf_counter()
        for step in steps:
            self.at_s += [now_s] * len(step.token_ids)
            if step.finish_reason is not None:
                self._loop.call_soon_threadsafe(self.done.set)


def request(rng: np.random.Generator, vocabulary: int, prompt: int, output: int) -> Request:
    """Prompts differ from their first token on, so that no prefix is reused."""
    ids = rng.integers(10, vocabulary - 10, prompt).tolist()
    params = SamplingParams(max_tokens=output, temperature=0.0, ignore_eos=True)
    return Request(id=f"{rng.integers(1 << 60)}", prompt_ids=tuple(ids), params=params)


async def ask(engine: TorchEngine, asked: Request) -> Watch:
    watch = Watch()
    watch.asked_s = time.perf_counter()
    await engine.submit(asked, watch)
    return watch


async def profile(
    engine: WatchedEngine, rng: np.random.Generator, seconds: float, longest: int
) -> list[MeasuredStep]:
    """Steps of many kinds for so long, prompts of up to `longest` tokens, then some after each
    pause."""
    engine.taken()
    vocabulary = engine.info.vocab_size
    end_s = time.perf_counter() + seconds
    for running in _over(end_s, (1, 2, 4, 8, 16)):
        requests = [
            request(
                rng, vocabulary, _between(rng, 8, longest), _between(rng, 4, max(longest // 32, 12))
            )
            for _ in range(running)
        ]
        watches = [await ask(engine, one) for one in requests]
        await asyncio.gather(*(watch.done.wait() for watch in watches))
    steps = [step for step in engine.taken() if step.pause_s == 0]
    for pause_s in PAUSES_S * 5:
        await asyncio.sleep(pause_s)
        watch = await ask(engine, request(rng, vocabulary, int(rng.integers(8, longest // 5)), 4))
        await watch.done.wait()
    return [*steps, *engine.taken()]


def _over(end_s: float, values: Many[int]):
    """By turns, until the time is over."""
    while True:
        for value in values:
            if time.perf_counter() > end_s:
                return
            yield value


def _between(rng: np.random.Generator, least: int, most: int) -> int:
    """Each doubling is as likely as the next."""
    return int(np.exp(rng.uniform(np.log(least), np.log(most))))
