"""What `place --spot` prints, served over two machines, of which one is taken away."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from apps.common.command.cli import run
from apps.common.files import config as configs
from apps.serve.__main__ import COMMANDS
from apps.serve.client import AsyncClient
from tests.cluster.machines import BIN, Network, TestMachine, network
from tests.serve.models import write_model

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]

TOKENS = 3000
PROMPTS = tuple(f"Tell me about the number {number}" for number in range(6))
SPEEDS = {"step_ms": 1.0, "sequence_us": 1000, "context_ns": 0, "prompt_us": 10}
WAIT_S = 240.0


def placed(folder: Path) -> Path:
    """One model on two cores, as `place` prints it, and what a person adds: an address, no page."""
    model = write_model(folder / "vicuna", 1, 4096)
    row = {"weights_gb": 2.5, "kv_bytes_per_token": 2048, "speeds": {"CPU": {1: SPEEDS}}}
    (folder / "speeds.yaml").write_text(yaml.safe_dump({"models": {"tiny": row}}))
    entry = {"name": "vicuna", "path": model, "speed": "tiny"}
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": [entry]}))
    file = folder / "serve.yaml"
    arguments = [
        "place", folder / "models.yaml", "--gpus", "2xCPU", "--speeds", folder / "speeds.yaml",
        "--traffic.kind", "gamma", "--traffic.rate-per-s", "5", "--traffic.minutes", "2",
        "--slo", "ttft=2s,tpot=10ms", "--seconds", "2", "--spot", "--out", file,
    ]  # fmt: skip
    assert run("apps.serve", COMMANDS, list(map(str, arguments))) == 0
    content = configs.load_yaml(str(file))
    more = {"gateway": {"host": "0.0.0.0"}, "page": {"enabled": False}}
    file.write_text(yaml.safe_dump({**content, **more}))
    return file


def until(holds: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s, f"not within {WAIT_S:.0f} s: {what}"
        time.sleep(0.5)


def start(net: Network) -> tuple[TestMachine, TestMachine]:
    """A head that stays and a machine that may be taken, in one Ray."""
    head, spot = net.add(), net.add()
    store = ("--object-store-memory", str(100 << 20))
    ray = (str(BIN / "ray"), "start", "--num-cpus", "4", *store)
    temp = ("--temp-dir", "/dev/shm/ray")
    starting = head.popen(*ray, "--head", "--port", "6379", "--include-dashboard", "false", *temp)
    assert "Ray runtime started" in starting.communicate(timeout=120)[0]
    joining = spot.popen(*ray, "--address", f"{head.address}:6379", RAY_NODE_MARKET_TYPE="spot")
    assert "Ray runtime started" in joining.communicate(timeout=120)[0]
    return head, spot


def replicas(machine: TestMachine, name: str) -> int:
    return len(machine.pids(f"^ray::ServeReplica:model-{name}:"))


def test_a_pool_of_both_markets_stands_where_it_says_and_outlives_the_spot_machine(
    tmp_path: Path,
) -> None:
    file = placed(tmp_path)
    names = {model["name"] for model in configs.load_yaml(str(file))["models"]}  # type: ignore
    assert names == {"vicuna", "vicuna-stable", "vicuna-spot"}
    with network(tmp_path) as net:
        head, spot = start(net)
        serving = head.popen(
            str(BIN / "python"), "-W", "ignore", "-m", "apps.serve", "run", str(file),
            RAY_ADDRESS=f"{head.address}:6379",
        )  # fmt: skip
        try:
            until(
                lambda: replicas(head, "vicuna-stable") == 1 == replicas(spot, "vicuna-spot"),
                "a replica on each machine",
            )
            assert replicas(head, "vicuna-spot") == 0 == replicas(spot, "vicuna-stable")
            url = f"http://{head.address}:8000"
            until(lambda: answers(url), "the gateway")
            assert entry_status(head) == 200 and entry_status(spot) == 503
            asyncio.run(ask_while_it_is_lost(url, spot))
            assert len(asyncio.run(all_answers(url))) == len(PROMPTS)  # by the stable one alone
        finally:
            head.lose()
            spot.lose()
            print(serving.communicate()[0])


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def entry_status(machine: TestMachine) -> int:
    """What a load balancer hears there."""
    return httpx.get(f"http://{machine.address}:8000/entry", timeout=10).status_code


async def answer(url: str, prompt: str, begun: asyncio.Event | None = None) -> int:
    """Tokens of a whole stream; an error where it does not come to its own end."""
    body = {
        "model": "vicuna", "messages": [{"role": "user", "content": prompt}], "temperature": 0,
        "max_tokens": TOKENS, "ignore_eos": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    reason, pieces = None, 0
    async with AsyncClient([f"{url}/v1"]) as client:
        async for chunk in client.stream("chat/completions", body):
            for choice in chunk["choices"]:
                pieces += bool(choice["delta"].get("content"))
                reason = choice["finish_reason"] or reason
                if begun is not None and pieces > 20:
                    begun.set()
    assert reason == "length", reason
    return pieces


async def all_answers(url: str) -> list[int]:
    return await asyncio.gather(*(answer(url, prompt) for prompt in PROMPTS))


async def ask_while_it_is_lost(url: str, spot: TestMachine) -> None:
    undisturbed = await all_answers(url)
    begins = [asyncio.Event() for _ in PROMPTS]
    asked = [
        asyncio.create_task(answer(url, prompt, begun))
        for prompt, begun in zip(PROMPTS, begins, strict=True)
    ]
    await asyncio.gather(*(begun.wait() for begun in begins))
    over = sum(task.done() for task in asked)
    spot.lose()
    made = await asyncio.gather(*asked)
    print(f"{len(made)} streams, {over} over before the loss; pieces {made}, before {undisturbed}")
    assert over < len(made)
