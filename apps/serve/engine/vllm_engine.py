"""vLLM as an engine: its own server process on loopback, token ids in and out over HTTP.

Only what vLLM documents of its HTTP surface is used (/health, /metrics, /v1/models, and
/v1/completions with token-id prompts, `return_token_ids` and `return_tokens_as_token_ids`), so a
new version of its Python API cannot break this.

A request that moves here from another replica continues after its generated tokens. Greedy text is
then that of one run up to vLLM's own numerics; sampled text is not (vLLM draws random numbers in
order, not by position), and penalties see the moved tokens as prompt.
"""

import asyncio
import contextlib
import functools
import os
import re
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from apps.common.errors import CriaError
from apps.serve.engine.config import VllmConfig
from apps.serve.engine.model_folder import read_eos_token_ids, read_vocab_size
from apps.serve.engine.protocol import (
    Capacity,
    EngineDeadError,
    EngineInfo,
    Outbox,
    OverloadedError,
    Request,
    RequestError,
    Step,
    TokenLogprob,
    check_request,
)
from apps.serve.engine.sse import read_events

_HEALTH_PERIOD_S = 2.0
_HEALTH_TIMEOUT_S = 10.0
_MAX_MISSED_HEALTH = 3
_CLOSE_TIMEOUT_S = 15.0
_ADAPTER = "adapter"
# The server must not outlive a killed replica: it would keep the GPU. 1 is PR_SET_PDEATHSIG.
_LAUNCHER = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGKILL); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
_METRICS = {
    "vllm:prompt_tokens_total": "prompt_tokens_total",
    "vllm:generation_tokens_total": "generated_tokens_total",
    "vllm:prefix_cache_hits_total": "cached_tokens_total",
    "vllm:kv_cache_usage_perc": "kv_used_ratio",
    "vllm:num_requests_running": "running_requests",
    "vllm:num_requests_waiting": "waiting_requests",
}
_EXCEPTION = re.compile(r"\b\w+(?:Error|Exception): .{1,1000}")
_CHATTER = re.compile(r"\b(?:DEBUG|INFO|WARNING)\b")
_SAMPLE = re.compile(r"^(vllm:\w+)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


class VllmEngine:
    """See apps.serve.engine.protocol.Engine."""

    def __init__(self, config: VllmConfig) -> None:
        self.config = config
        self._process: asyncio.subprocess.Process | None = None
        self._log = Path(os.devnull)
        self._death: Exception | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._outboxes: dict[str, Outbox] = {}
        self._metrics: dict[str, float] = {}
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        headers = {}
        if self.config.base_url:
            base_url = self.config.base_url.rstrip("/").removesuffix("/v1")
        else:
            key = secrets.token_urlsafe(24)
            headers["Authorization"] = f"Bearer {key}"
            base_url = await self._launch(key)
        self._http = aiohttp.ClientSession(
            base_url + "/",
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            connector=aiohttp.TCPConnector(limit=0),
        )
        try:
            await self._wait_until_healthy()
            self.info = await self._read_info()
        except BaseException:
            await self.close()
            raise
        self._watcher = asyncio.create_task(self._watch())

    async def _launch(self, key: str) -> str:
        port = _free_port()
        self._log = Path(tempfile.mkstemp(prefix="vllm-", suffix=".log")[1])
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _LAUNCHER, *server_command(self.config, port),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1"},
            )  # fmt: skip
        return f"http://127.0.0.1:{port}"

    async def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + self.config.start_timeout_s
        while not await self._is_healthy():
            if self._process is not None and self._process.returncode is not None:
                raise CriaError(f"vLLM ended while starting. Its last words: {self._last_words()}")
            if time.monotonic() > deadline:
                raise CriaError(
                    f"vLLM was not ready after {self.config.start_timeout_s:g} s; raise "
                    f"start_timeout_s. Its last words: {self._last_words()}"
                )
            await asyncio.sleep(0.25)

    async def _read_info(self) -> EngineInfo:
        async with self._http.get("v1/models") as response:
            response.raise_for_status()
            served = (await response.json())["data"][0]
        folder = self.config.path
        return EngineInfo(
            model=_ADAPTER if self.config.lora else served["id"],
            context_tokens=int(served["max_model_len"]),
            vocab_size=read_vocab_size(folder),
            eos_token_ids=read_eos_token_ids(folder),
        )

    async def submit(self, request: Request, outbox: Outbox) -> None:
        self.check_health()
        check_request(request, self.info)
        if len(self._tasks) >= self.config.max_running + self.config.max_waiting:
            raise OverloadedError(f"{len(self._tasks)} requests are in work already; try again")
        if request.generated_ids and request.params.grammar is not None:
            raise RequestError("vLLM cannot go on inside a half-written JSON", "response_format")
        if request.id in self._tasks:
            raise RequestError(f"a request with id {request.id!r} is running already", "id")
        response = await self._post(completion_body(request, self.info))
        if self._death is not None:  # it died meanwhile, and told only those it had in work
            response.close()
            raise self._death
        self._outboxes[request.id] = outbox
        task = asyncio.create_task(self._pump(request, response, outbox))
        task.add_done_callback(functools.partial(self._end, request.id, response, outbox))
        self._tasks[request.id] = task

    async def _post(self, body: Mapping[str, Any]) -> aiohttp.ClientResponse:
        try:
            response = await self._http.post("v1/completions", json=body)
        except aiohttp.ClientError as error:
            await self._check_alive()
            # Not EngineDeadError: this very request may have ended it.
            raise CriaError(f"the vLLM server does not answer: {error!r}") from error
        if response.status == 200:
            return response
        async with response:
            text = (await response.text())[:2000]
        if response.status in (429, 503):
            raise OverloadedError(f"vLLM refused the request for now: {text}")
        if response.status < 500:
            raise RequestError(f"vLLM refused the request: {text}")
        await self._check_alive()
        raise CriaError(f"vLLM failed with status {response.status}: {text}")

    async def _pump(
        self, request: Request, response: aiohttp.ClientResponse, outbox: Outbox
    ) -> None:
        """Events of one answer, as steps."""
        finished = False
        try:
            async with contextlib.aclosing(read_events(response)) as events:
                async for event in events:
                    step = read_step(event, request, self.info)
                    if step is not None and not finished:
                        finished = step.finish_reason is not None
                        outbox.put([step])
            if not finished:
                raise ValueError("the answer has no finish_reason")
        except asyncio.CancelledError:
            if not finished:
                outbox.put([Step(request.id, (), finish_reason="cancelled")])
        except Exception as error:  # what a server may send has no end of forms
            await self._check_alive()
            if not finished and self._death is None:
                message = f"vLLM broke off the answer: {error!r}"
                outbox.put([Step(request.id, (), finish_reason="error", error=message)])

    def _end(
        self,
        request_id: str,
        response: aiohttp.ClientResponse,
        outbox: Outbox,
        task: "asyncio.Task[None]",
    ) -> None:
        response.close()
        self._tasks.pop(request_id, None)
        self._outboxes.pop(request_id, None)
        if task.cancelled():  # before its first step, where it cannot tell so itself
            outbox.put([Step(request_id, (), finish_reason="cancelled")])

    def cancel(self, request_id: str) -> None:
        task = self._tasks.get(request_id)
        if task is not None:
            task.cancel()

    def capacity(self) -> Capacity:
        running = int(self._metrics.get("running_requests", 0))
        return Capacity(
            running=running,
            waiting=max(0, len(self._tasks) - running),
            max_running=self.config.max_running,
            max_waiting=self.config.max_waiting,
            kv_used_tokens=round(100 * self._metrics.get("kv_used_ratio", 0.0)),
            kv_total_tokens=100,  # vLLM tells a share only
        )

    def check_health(self) -> None:
        if self._death is not None:
            raise self._death

    def metrics(self) -> dict[str, float]:
        return dict(self._metrics)

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        for task in list(self._tasks.values()):
            task.cancel()
        await self._http.close()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _CLOSE_TIMEOUT_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._process is not None:
            self._log.unlink(missing_ok=True)

    async def _watch(self) -> None:
        """Death of the process is seen at once, a hanging server after a few missed checks."""
        exited = asyncio.create_task(self._process.wait()) if self._process else None
        missed = 0
        while missed < _MAX_MISSED_HEALTH:
            if exited is None:
                await asyncio.sleep(_HEALTH_PERIOD_S)
            elif await _finishes(exited, _HEALTH_PERIOD_S):
                self._die(f"the vLLM server ended. Its last words: {self._last_words()}")
                return
            missed = 0 if await self._is_healthy() else missed + 1
            await self._read_metrics()
        self._die(f"the vLLM server missed {missed} health checks in a row")

    async def _check_alive(self) -> None:
        """After a failure: whether it was that of one request, or of the server and all others."""
        if self._death is None and not await self._is_healthy():
            self._die(f"the vLLM server failed. Its last words: {self._last_words()}")

    def _die(self, reason: str) -> None:
        self._death = EngineDeadError(reason)
        for outbox in {id(o): o for o in self._outboxes.values()}.values():
            outbox.fail(self._death)

    async def _is_healthy(self) -> bool:
        timeout = aiohttp.ClientTimeout(total=_HEALTH_TIMEOUT_S)
        try:
            async with self._http.get("health", timeout=timeout) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _read_metrics(self) -> None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            timeout = aiohttp.ClientTimeout(total=_HEALTH_TIMEOUT_S)
            async with self._http.get("metrics", timeout=timeout) as response:
                self._metrics = read_metrics(await response.text())

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return last_words(self._log.read_text(errors="replace"))
        return "none"


def server_command(config: VllmConfig, port: int) -> list[str]:
    command = [config.python or sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", config.path, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--max-num-seqs", str(config.max_running)]
    if config.tensor_parallel_size > 1:
        command += ["--tensor-parallel-size", str(config.tensor_parallel_size)]
    if config.quantization:
        command += ["--quantization", config.quantization]
    if config.context_tokens:
        command += ["--max-model-len", str(config.context_tokens)]
    if config.lora:
        command += ["--enable-lora", "--lora-modules", f"{_ADAPTER}={config.lora}"]
    return [*command, *config.server_args]


def completion_body(request: Request, info: EngineInfo) -> dict[str, Any]:
    """A protocol request as the body of POST /v1/completions."""
    params = request.params
    prompt = [*request.prompt_ids, *request.generated_ids]
    room = info.context_tokens - len(prompt)
    left = room if params.max_tokens is None else params.max_tokens - len(request.generated_ids)
    body: dict[str, Any] = {
        "model": info.model,
        "prompt": prompt,
        "add_special_tokens": False,
        "stream": True,
        "return_token_ids": True,
        "max_tokens": min(room, left),
        "min_tokens": max(0, params.min_tokens - len(request.generated_ids)),
        "temperature": params.temperature,
        "top_p": params.top_p or 1e-6,  # vLLM refuses 0
        "top_k": params.top_k,
        "min_p": params.min_p,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "repetition_penalty": params.repetition_penalty,
        "logit_bias": {str(token): bias for token, bias in params.logit_bias.items()},
        "seed": params.seed,
        "stop_token_ids": list(params.stop_token_ids),
        "ignore_eos": params.ignore_eos,
    }
    if params.logprobs is not None:
        body |= {"logprobs": params.logprobs, "return_tokens_as_token_ids": True}
    if params.grammar is not None:
        is_schema = params.grammar.kind == "json_schema"
        schema = params.grammar.text if is_schema else '{"type": "object"}'
        body["structured_outputs"] = {"json": schema}
    if request.cache_salt:
        body["cache_salt"] = request.cache_salt
    return body


def read_step(event: Mapping[str, Any], request: Request, info: EngineInfo) -> Step | None:
    """One event of the stream as a step; None when it holds neither a token nor an end."""
    if "error" in event:
        raise CriaError(str(event["error"]))
    if not event.get("choices"):
        return None
    choice = event["choices"][0]
    token_ids = tuple(choice.get("token_ids") or ())
    reason = choice.get("finish_reason")
    if reason not in (None, "stop", "length"):
        error = f"vLLM ended the answer: {reason}"
        return Step(request.id, token_ids, finish_reason="error", error=error)
    logprobs = _read_logprobs(choice.get("logprobs"), request.params.logprobs)
    if reason == "stop":
        token_ids = _with_stop_token(token_ids, choice.get("stop_reason"), request, info)
    if not token_ids and reason is None:
        return None
    return Step(request.id, token_ids, logprobs, reason)


def _with_stop_token(
    token_ids: tuple[int, ...], stop_reason: Any, request: Request, info: EngineInfo
) -> tuple[int, ...]:
    """The protocol wants the stop token at the end; vLLM may leave it out."""
    stops = (stop_reason,) if isinstance(stop_reason, int) else info.eos_token_ids
    stops = stops or request.params.stop_token_ids
    if not stops or (token_ids and token_ids[-1] in stops):
        return token_ids
    return (*token_ids, stops[0])


def _read_logprobs(found: Mapping[str, Any] | None, asked: int | None) -> tuple[TokenLogprob, ...]:
    if asked is None or not found:
        return ()
    tops = found.get("top_logprobs") or [{}] * len(found["token_logprobs"])
    return tuple(
        TokenLogprob(chosen, _read_top(top, asked))
        for chosen, top in zip(found["token_logprobs"], tops, strict=True)
    )


def _read_top(top: Mapping[str, float] | None, asked: int) -> tuple[tuple[int, float], ...]:
    """{"token_id:12": -0.3}, likeliest first; vLLM adds the chosen token when it is not among
    the likeliest."""
    pairs = [(int(name.removeprefix("token_id:")), p) for name, p in (top or {}).items()]
    return tuple(sorted(pairs, key=lambda pair: -pair[1])[:asked])


def last_words(log: str) -> str:
    """The first exception of a log, which is the cause of those after it, or else its end. Warnings
    speak of exceptions that did not happen."""
    lines = [line for line in log.strip().splitlines() if not _CHATTER.search(line)]
    told = "\n".join(lines)
    cause = _EXCEPTION.search(told)
    return (cause[0] if cause else told[-1500:]) or "none"


def read_metrics(text: str) -> dict[str, float]:
    """Prometheus text to the names of the torch engine, over all engine processes of vLLM: their
    sum, of shares the mean."""
    found: dict[str, list[float]] = {}
    for name, value in _SAMPLE.findall(text):
        if name in _METRICS:
            found.setdefault(_METRICS[name], []).append(float(value))
    return {
        name: sum(values) / (len(values) if name.endswith("_ratio") else 1)
        for name, values in found.items()
    }


async def _finishes(task: asyncio.Task[Any], timeout_s: float) -> bool:
    done, _ = await asyncio.wait([task], timeout=timeout_s)
    return bool(done)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
