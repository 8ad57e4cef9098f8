"""`python -m apps.serve run` in a process of its own, and the answers that it streams."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
MESSAGES = [{"role": "user", "content": "hi"}]


class Printed:
    """What a command says with `--log-format json`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def event(self, *names: str) -> dict[str, Any]:
        """The next event of one of these names."""
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("{") and (found := json.loads(line)).get("event") in names:
                return found
        raise AssertionError(f"the command ended before {names}")


class Command(Printed):
    """The service while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(process)
        self.api = self.event("serve.ready")["api"]

    def status(self, model: str) -> int:
        body = {"model": model, "messages": MESSAGES, "max_tokens": 3}
        return httpx.post(f"{self.api}/chat/completions", json=body, timeout=60).status_code


@contextmanager
def command(*arguments: object, **env: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m apps.serve ARGUMENTS`, killed at the end of the block if it still runs."""
    argv = [sys.executable, "-W", "ignore", "-m", "apps.serve", *map(str, arguments)]
    given = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | env
    with subprocess.Popen(
        [*argv, "--log-format", "json"], cwd=ROOT, env=given, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def running(file: Path, *arguments: object, **env: str) -> Iterator[Command]:
    with command("run", file, "--port", 0, *arguments, **env) as process:
        yield Command(process)


async def streamed(
    http: httpx.AsyncClient, url: str, body: Mapping[str, object], begun: Any = None
) -> str:
    """The whole text of a greedy stream; AssertionError where it does not come to its own end.

    `begun`, an asyncio.Event, is set with the first piece.
    """
    said, reason, is_done = "", None, False
    asked = {**body, "temperature": 0, "ignore_eos": True, "stream": True}
    async with http.stream("POST", f"{url}/chat/completions", json=asked) as response:
        assert response.status_code == 200, await response.aread()
        rest = b""
        async for data in response.aiter_bytes():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if not line.startswith(b"data: "):
                    continue
                if line.strip() == b"data: [DONE]":
                    is_done = True
                    continue
                event = json.loads(line[6:])
                assert "error" not in event, event
                for choice in event["choices"]:
                    said += choice["delta"].get("content") or ""
                    reason = choice["finish_reason"] or reason
                    if begun is not None:
                        begun.set()
    assert is_done and reason == "length", (reason, said[-40:])
    return said
