"""Chats of several turns over two replicas beside one: how much of a later turn is cached.

    python -m benchmarks.routing                       # four minutes

A 5M model, one thread a replica. CHATS conversations at a time, all with one system prompt, ask
TURNS questions each. `cached` is the share of the prompts of later turns that came from a prefix
cache; `first token` is of later turns too. `two, one killed` loses a replica to SIGKILL in the
middle, and every chat has to reach its end.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from apps.serve.client import AsyncClient
from benchmarks.contenders.serve_load import percentile
from benchmarks.results import save
from benchmarks.serve import our_server
from benchmarks.serve_model import make_model

CHATS, TURNS, ANSWER_TOKENS = 16, 6, 32
THINKS_S = 0.4
WORDS = ("one", "two", "tree", "stone", "river", "house", "eastern", "train", "iron", "rain", "tea")
READY_S = 120


@dataclass(slots=True)
class Seen:
    """What all chats saw."""

    prompt_tokens: int = 0
    """of later turns, as the next"""
    cached_tokens: int = 0
    first_token_s: list[float] = field(default_factory=list[float])
    num_answers: int = 0
    failed: list[str] = field(default_factory=list[str])

    def summary(self) -> dict[str, float]:
        return {
            "cached": self.cached_tokens / self.prompt_tokens,
            "first_token_p50_ms": 1e3 * percentile(self.first_token_s, 0.5),
            "first_token_p95_ms": 1e3 * percentile(self.first_token_s, 0.95),
            "answers": self.num_answers,
            "failed": len(self.failed),
        }


async def chat(client: AsyncClient, model: str, number: int, seen: Seen) -> None:
    draw = random.Random(number)
    messages = [{"role": "system", "content": " ".join(WORDS * 4)}]
    for turn in range(TURNS):
        question = " ".join(draw.choices(WORDS, k=draw.randint(20, 60)))
        messages.append({"role": "user", "content": question})
        body = {
            "model": model, "messages": messages, "max_tokens": ANSWER_TOKENS, "temperature": 0,
            "ignore_eos": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        began_s, first_s, text = time.perf_counter(), 0.0, ""
        async for chunk in client.stream("chat/completions", body):
            for choice in chunk["choices"]:
                text += choice["delta"].get("content") or ""
                first_s = first_s or time.perf_counter() - began_s
            if turn and chunk.get("usage"):
                usage = chunk["usage"]
                seen.prompt_tokens += usage["prompt_tokens"]
                seen.cached_tokens += usage["prompt_tokens_details"]["cached_tokens"]
        messages.append({"role": "assistant", "content": text})
        seen.num_answers += 1
        if turn:
            seen.first_token_s.append(first_s)
        await asyncio.sleep(draw.uniform(0, THINKS_S))


async def chats(url: str, model: str, seen: Seen, kills: bool) -> None:
    async def one(number: int) -> None:
        try:
            async with AsyncClient([url]) as client:
                await chat(client, model, number, seen)
        except Exception as error:
            seen.failed.append(repr(error))

    tasks = [asyncio.create_task(one(number)) for number in range(CHATS)]
    if kills:
        while seen.num_answers < CHATS * TURNS // 3:
            await asyncio.sleep(0.05)
        os.kill(random.choice(replicas()).pid, signal.SIGKILL)
    await asyncio.gather(*tasks)


def replicas() -> list[psutil.Process]:
    """Of the server that this process has started."""
    below = psutil.Process().children(recursive=True)
    return [p for p in below if "ServeReplica:model-" in " ".join(p.cmdline())]


def measure(model: str, num_replicas: int, kills: bool = False) -> dict[str, float]:
    seen = Seen()
    with our_server(model, threads=1, replicas=num_replicas) as url:
        metrics = f"{url.removesuffix('/v1')}/metrics"
        deadline_s = time.monotonic() + READY_S
        while f"}} {num_replicas}.0" not in _line("cria_replicas{", metrics):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"there were not {num_replicas} replicas within {READY_S} s")
            time.sleep(0.2)
        asyncio.run(chats(url, Path(model).name, seen, kills))
    if seen.failed:
        print("\n".join(seen.failed[:5]))
    return seen.summary()


def _line(begin: str, metrics: str) -> str:
    lines = httpx.get(metrics, timeout=30).text.splitlines()
    return next((line for line in lines if line.startswith(begin)), "")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", help="JSON file; results/routing.json if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder) / "vicuna-5M", "5M")
        results = {
            "one": measure(model, 1),
            "two": measure(model, 2),
            "two, one killed": measure(model, 2, kills=True),
        }
    for name, summary in results.items():
        print(f"{name}: {json.dumps({k: round(v, 3) for k, v in summary.items()})}")
    ratio = results["two"]["cached"] / results["one"]["cached"]
    print(f"cached share of later turns, two replicas over one: {ratio:.3f} (bar 0.95)")
    save("routing", {**results, "ratios": {"cached, two / one": ratio}}, options.out)


if __name__ == "__main__":
    main()
