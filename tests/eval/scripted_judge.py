"""A scripted OpenAI-compatible endpoint: contestants and a deterministic judge, with faults.

    python tests/eval/scripted_judge.py --latency-s 2 --requests-per-min 600 --fault-share 0.2

Prints its URL as the first line. Tests and the judge benchmark use it in place of GPT-4; it counts
every request, so that repeats can be counted where they would be paid for.

Models whose name starts with `judge` judge. The answer that shares more words with the question (or
the reference, where there is one) is better, each word counted once. Text outside the block of its
nonce is not seen. `first-judge` always prefers the first answer, `long-judge` the longer one. Any
other model, or prompt without answers, gets `<name> says: <last message>`.
"""

import argparse
import asyncio
import json
import random
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

_BLOCK = re.compile(r"----- BEGIN (.+?) \((\w+)\) -----\n(.*?)\n----- END \1 \(\2\) -----", re.S)


@dataclass(kw_only=True)
class Script:
    """How the endpoint behaves."""

    latency_s: float = 0.0
    requests_per_min: float | None = None
    """Beyond this, 429 with Retry-After; a window of one second."""
    holds_after: int | None = None
    """Requests after so many wait until this is None: what is killed meanwhile has not ended."""
    fault_share: float = 0.0
    """Share of requests that fail, by the kinds in `faults`, in turn."""
    faults: tuple[str, ...] = ("429", "500", "timeout", "garbage", "truncation")
    timeout_s: float = 4.0
    """How long a `timeout` fault hangs before the connection drops."""
    seed: int = 0
    answer: Callable[[str, list[dict[str, str]]], str] | None = None
    """(model, messages) -> text; overrides the built-in behaviour."""
    status: int | None = None
    """Every request fails with this HTTP status."""
    error_code: str | None = None
    handle: Callable[[web.Request, dict[str, Any]], web.StreamResponse | None] | None = None
    """(request, body) -> the whole response, or None for the built-in behaviour"""


@dataclass
class Endpoint:
    script: Script
    url: str = ""
    requests: Counter[str] = field(default_factory=Counter)
    """Times each distinct request body was received."""
    served: Counter[str] = field(default_factory=Counter)
    """Times each distinct request body was answered with a completion."""
    usage: dict[str, dict[str, int]] = field(default_factory=dict)
    """What each distinct request body was answered with: the endpoint's own count of tokens."""
    arrivals_s: list[float] = field(default_factory=list)
    """When each request came, on the clock that all processes of a machine share."""
    in_flight: int = 0
    most_in_flight: int = 0
    num_429: int = 0
    num_faults: int = 0
    recent: deque[float] = field(default_factory=deque)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self.arrivals_s.append(time.monotonic())
        body = await request.json()
        identity = json.dumps(body, sort_keys=True)
        self.requests[identity] += 1
        self.bodies.append(body)
        script, number = self.script, len(self.bodies)
        handled = script.handle(request, body) if script.handle else None
        if handled is not None:
            return handled
        if script.status:
            return error(script.status, script.error_code)
        if self._is_over_rate():
            self.num_429 += 1
            return error(429, "rate_limit_exceeded", {"Retry-After": "1"})
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            fault = self._fault()
            if fault in ("429", "500"):
                return error(int(fault), None, {"Retry-After": "0.2"} if fault == "429" else {})
            if fault == "timeout":
                await asyncio.sleep(script.timeout_s)
                raise web.HTTPGatewayTimeout
            await asyncio.sleep(script.latency_s)
            while script.holds_after is not None and number > script.holds_after:
                await asyncio.sleep(0.02)
            if fault == "garbage":
                return web.Response(text="<html>upstream said no</html>")
            text = (script.answer or respond)(body["model"], body["messages"])
            response = completion(body, text, is_cut=fault == "truncation")
            self.served[identity] += 1
            self.usage[identity] = response["usage"]
            return web.json_response(response)
        finally:
            self.in_flight -= 1

    async def upload(self, request: web.Request) -> web.Response:
        if self.script.status:
            return error(self.script.status, self.script.error_code)
        data = (await request.post())["file"]
        return web.json_response(self._file(data.file.read()))

    async def content(self, request: web.Request) -> web.Response:
        return web.Response(body=self.files[request.match_info["file"]])

    async def create_batch(self, request: web.Request) -> web.Response:
        """Batches complete at once. What the script makes fail lies in their error file."""
        input_file = (await request.json())["input_file_id"]
        lines, failed = [], []
        for line in self.files[input_file].splitlines():
            call = json.loads(line)
            self.requests[json.dumps(call["body"], sort_keys=True)] += 1
            handled = self.script.handle(request, call["body"]) if self.script.handle else None
            if isinstance(handled, web.Response) and isinstance(handled.body, bytes):
                response = {"status_code": handled.status, "body": json.loads(handled.body)}
            elif self._fault():
                response = {"status_code": 500, "body": {}}
            else:
                text = respond(call["body"]["model"], call["body"]["messages"])
                self.served[json.dumps(call["body"], sort_keys=True)] += 1
                response = {"status_code": 200, "body": completion(call["body"], text, False)}
            made = failed if response["status_code"] >= 400 else lines
            made.append(json.dumps({"custom_id": call["custom_id"], "response": response}))
        batch = {
            "id": f"batch-{len(self.batches)}",
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "created_at": 0,
            "input_file_id": input_file,
            "output_file_id": self._file("\n".join(lines).encode())["id"] if lines else None,
            "error_file_id": self._file("\n".join(failed).encode())["id"] if failed else None,
            "status": "completed",
        }
        self.batches[batch["id"]] = batch
        return web.json_response(batch)

    async def batch(self, request: web.Request) -> web.Response:
        return web.json_response(self.batches[request.match_info["batch"]])

    async def list_batches(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"object": "list", "data": [*self.batches.values()], "has_more": False}
        )

    def _file(self, data: bytes) -> dict[str, Any]:
        name = f"file-{len(self.files)}"
        self.files[name] = data
        return {
            "id": name,
            "object": "file",
            "bytes": len(data),
            "created_at": 0,
            "filename": "calls.jsonl",
            "purpose": "batch",
            "status": "processed",
        }

    async def stats(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "requests": self.requests.total(),
                "distinct": len(self.requests),
                "served": self.served.total(),
                "served_twice": sum(count - 1 for count in self.served.values()),
                "most_in_flight": self.most_in_flight,
                "in_flight": self.in_flight,
                "num_429": self.num_429,
                "num_faults": self.num_faults,
                "arrivals_s": self.arrivals_s,
            }
        )

    def _is_over_rate(self) -> bool:
        if self.script.requests_per_min is None:
            return False
        now = time.monotonic()
        while self.recent and now - self.recent[0] > 1.0:
            self.recent.popleft()
        if len(self.recent) >= self.script.requests_per_min / 60.0 + 1:
            return True
        self.recent.append(now)
        return False

    def _fault(self) -> str | None:
        rng = random.Random(f"{self.script.seed}-{self.requests.total()}")
        if rng.random() >= self.script.fault_share:
            return None
        self.num_faults += 1
        return self.script.faults[self.num_faults % len(self.script.faults)]


def respond(model: str, messages: list[dict[str, str]]) -> str:
    """A contestant's answer, or a judgment in whatever form the prompt asks for."""
    prompt = messages[-1]["content"]
    found = _BLOCK.findall(prompt)
    if "judge" not in model or not found:
        return f"{model} says: {prompt}"
    blocks, nonce = {title: text for title, _, text in found}, found[0][1]
    goal = blocks.get("the reference answer") or blocks.get("the user's question", "")
    answers = [text for title, text in blocks.items() if "ssistant" in title]
    shares = [_quality(model, place, text, goal) for place, text in enumerate(answers)]
    if "write only the two scores" in prompt or "Assistant 1: <score>" in prompt:
        scores = [f"{round(1 + 9 * share, 1):g}" for share in shares]
        if "On the first line" in prompt:
            return f"{' '.join(scores)}\nBoth were read."
        return f"I solve it first.\nAssistant 1: {scores[0]}\nAssistant 2: {scores[1]}"
    if len(shares) == 1:
        return f"It covers {shares[0]:.0%} of the matter.\n{nonce} [[{round(1 + 9 * shares[0])}]]"
    lead = shares[0] - shares[1]
    if "A>>B" in prompt:
        label = "A=B" if abs(lead) < 0.01 else "A>B" if lead > 0 else "B>A"
    else:
        label = "C" if abs(lead) < 0.01 else "A" if lead > 0 else "B"
    return f"A covers {shares[0]:.0%}, B {shares[1]:.0%}.\n{nonce} [[{label}]]"


def _quality(model: str, place: int, text: str, goal: str) -> float:
    if model.startswith("first-"):
        return 1.0 - place / 2
    if model.startswith("long-"):
        return min(1.0, len(text) / 4000)
    wanted = set(re.findall(r"\w+", goal.lower()))
    return len(wanted & set(re.findall(r"\w+", text.lower()))) / max(1, len(wanted))


def completion(body: dict[str, Any], text: str, is_cut: bool) -> dict[str, Any]:
    text = text[: len(text) // 3].rstrip("\n") if is_cut else text
    prompt_tokens = sum(len(message["content"]) for message in body["messages"]) // 4
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"] + "-2023-03-14",
        "system_fingerprint": "fp_scripted",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "length" if is_cut else "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": len(text) // 4 + 1,
            "total_tokens": prompt_tokens + len(text) // 4 + 1,
        },
    }


def error(status: int, code: str | None, headers: dict[str, str] | None = None) -> web.Response:
    error = {"message": f"scripted {status}", "type": "scripted", "code": code}
    return web.json_response({"error": error}, status=status, headers=headers)


async def start(script: Script, port: int = 0) -> tuple[Endpoint, web.AppRunner]:
    """Serves on the loopback address until the runner is cleaned up."""
    endpoint = Endpoint(script)
    app = web.Application(client_max_size=256 << 20)
    for path in ("/v1/chat/completions", "/v1/messages", "/openai/{rest:.*}"):
        app.router.add_post(path, endpoint.complete)
    app.router.add_get("/stats", endpoint.stats)
    app.router.add_post("/v1/files", endpoint.upload)
    app.router.add_get("/v1/files/{file}/content", endpoint.content)
    app.router.add_post("/v1/batches", endpoint.create_batch)
    app.router.add_get("/v1/batches", endpoint.list_batches)
    app.router.add_get("/v1/batches/{batch}", endpoint.batch)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    return endpoint, runner


async def _serve(script: Script, port: int, lifetime_s: float) -> None:
    endpoint, runner = await start(script, port)
    print(endpoint.url, flush=True)
    await asyncio.sleep(lifetime_s)
    await runner.cleanup()


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-s", type=float, default=0.0)
    parser.add_argument("--requests-per-min", type=float)
    parser.add_argument("--fault-share", type=float, default=0.0)
    parser.add_argument("--timeout-s", type=float, default=4.0)
    parser.add_argument("--lifetime-s", type=float, default=600.0, help="ends by itself, seconds")
    args = parser.parse_args(argv)
    script = Script(
        latency_s=args.latency_s,
        requests_per_min=args.requests_per_min,
        fault_share=args.fault_share,
        timeout_s=args.timeout_s,
    )
    asyncio.run(_serve(script, args.port, args.lifetime_s))


if __name__ == "__main__":
    main(sys.argv[1:])
