"""Streaming load on an OpenAI-compatible server: tokens per second and the times between them."""

import asyncio
import random
import time
from dataclasses import dataclass, field

import aiohttp


@dataclass
class Load:
    """Times in seconds."""

    first_token: list[float] = field(default_factory=list)
    between_tokens: list[float] = field(default_factory=list)
    num_tokens: int = 0
    num_failed: int = 0
    wall: float = 0.0

    def summary(self) -> dict[str, float]:
        return {
            "tokens_per_s": self.num_tokens / self.wall,
            "first_token_p50_ms": 1e3 * percentile(self.first_token, 0.5),
            "first_token_p95_ms": 1e3 * percentile(self.first_token, 0.95),
            "between_tokens_p95_ms": 1e3 * percentile(self.between_tokens, 0.95),
            "failed": self.num_failed,
        }


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


async def load(
    url: str, model: str, work: list[tuple[str, int]], num_clients: int, extra: dict
) -> Load:
    """Clients take requests (prompt, answer tokens) from one queue until it is empty."""
    result, queue = Load(), list(reversed(work))
    timeout = aiohttp.ClientTimeout(total=280)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        began = time.perf_counter()

        async def client() -> None:
            while queue:
                await _request(http, url, model, *queue.pop(), extra, result)

        await asyncio.gather(*(client() for _ in range(num_clients)))
        result.wall = time.perf_counter() - began
    return result


async def _request(
    http: aiohttp.ClientSession, url: str, model: str, prompt: str, tokens: int, extra: dict,
    result: Load,
) -> None:  # fmt: skip
    body = {
        "model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0,
        "stream": True, **extra,
    }  # fmt: skip
    last = began = time.perf_counter()
    seen = False
    async with http.post(f"{url}/completions", json=body) as response:
        async for line in response.content:
            if not line.startswith(b"data:") or b"[DONE]" in line or b'"choices"' not in line:
                continue
            now = time.perf_counter()
            (result.between_tokens if seen else result.first_token).append(
                now - (last if seen else began)
            )
            seen, last = True, now
    if response.status == 200 and seen:
        result.num_tokens += tokens
    else:
        result.num_failed += 1


def texts(backend: object, count: int, seed: int, answer: tuple[int, int]) -> list[tuple[str, int]]:
    """Mixed lengths: prompts of 16-112 tokens, answers of `answer` tokens, from a tokenizer."""
    rng = random.Random(seed)
    vocab = backend.get_vocab_size()
    return [
        (
            backend.decode([rng.randrange(300, vocab) for _ in range(rng.randint(16, 112))]),
            rng.randint(*answer),
        )
        for _ in range(count)
    ]
