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
import secrets
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from apps.common.command.runtime import free_port
from apps.common.errors import CriaError
from apps.common.files.model_settings import read_settings
from apps.serve.engine.config import VllmConfig
from apps.serve.engine.protocol import (
    Capacity,
    EngineDeadError,
    EngineInfo,
    Outbox,
    OverloadedError,
    Request,
    RequestError,
    Step,
    check_request,
)
from apps.serve.engine.sse import EventReader
from apps.serve.engine.vllm.messages import (
    ADAPTER,
    completion_body,
    last_words,
    read_metrics,
    read_step,
    server_command,
)

_HEALTH_PERIOD_S = 2.0
_HEALTH_TIMEOUT_S = 10.0
_MAX_MISSED_HEALTH = 3
_CLOSE_TIMEOUT_S = 15.0
_LOOK_S = 0.5
_SILENT_LOOKS = 8
"""without a word from the server, which is asked how it is every two seconds; looks are counted,
not seconds, so that a pause of this process is nobody's silence"""
# The server must not outlive a killed replica: it would keep the GPU. 1 is PR_SET_PDEATHSIG.
_LAUNCHER = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGKILL); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class VllmEngine:
    """See apps.serve.engine.protocol.Engine."""

    def __init__(self, config: VllmConfig) -> None:
        self.config = config
        self._process: asyncio.subprocess.Process | None = None
        self._log = Path(os.devnull)
        self._death: Exception | None = None
        self._num_submitting = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._outboxes: dict[str, Outbox] = {}
        self._metrics: dict[str, float] = {}
        self._quiet_looks = 0
        self._watchers: list[asyncio.Task[None]] = []

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
        self._watchers = [asyncio.create_task(self._watch()), asyncio.create_task(self._listen())]

    async def _launch(self, key: str) -> str:
        port = free_port()
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
        async with self._http.get("v1/models", allow_redirects=False) as response:
            response.raise_for_status()
            served = (await response.json())["data"][0]
        settings = read_settings(self.config.path)  # empty for a hub id
        return EngineInfo(
            model=ADAPTER if self.config.lora else served["id"],
            context_tokens=int(served["max_model_len"]),
            vocab_size=settings.vocab_size,
            eos_token_ids=settings.eos_token_ids,
        )

    async def submit(self, request: Request, outbox: Outbox) -> None:
        self.check_health()
        check_request(request, self.info)
        in_work = len(self._tasks) + self._num_submitting
        if in_work >= self.config.max_running + self.config.max_waiting:
            raise OverloadedError(f"{in_work} requests are in work already; try again")
        if request.generated_ids and request.params.grammar is not None:
            raise RequestError("vLLM cannot go on inside a half-written JSON", "response_format")
        if request.id in self._tasks:
            raise RequestError(f"a request with id {request.id!r} is running already", "id")
        self._num_submitting += 1
        try:
            response = await self._post(completion_body(request, self.info))
        finally:
            self._num_submitting -= 1
        if self._death is not None:  # it died meanwhile, and told only those it had in work
            response.close()
            raise self._death
        self._outboxes[request.id] = outbox
        task = asyncio.create_task(self._pump(request, response, outbox))
        task.add_done_callback(functools.partial(self._end, request.id, response, outbox))
        self._tasks[request.id] = task

    async def _post(self, body: Mapping[str, Any]) -> aiohttp.ClientResponse:
        try:
            # A redirect would carry the texts to another address.
            response = await self._http.post("v1/completions", json=body, allow_redirects=False)
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
        if response.status < 400:
            there = response.headers.get("location", "another address")
            raise CriaError(f"the vLLM server moved to {there}; give that as its base_url")
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
            async with contextlib.aclosing(EventReader(response).events()) as events:
                async for event in events:
                    self._quiet_looks = 0
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

    def is_silent(self) -> bool:
        return self._quiet_looks > _SILENT_LOOKS

    def metrics(self) -> dict[str, float]:
        return dict(self._metrics)

    async def close(self) -> None:
        for watcher in self._watchers:
            watcher.cancel()
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

    async def _listen(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self._quiet_looks += 1

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
            async with self._http.get("health", timeout=timeout, allow_redirects=False) as response:
                self._quiet_looks = 0
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _read_metrics(self) -> None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            timeout = aiohttp.ClientTimeout(total=_HEALTH_TIMEOUT_S)
            async with self._http.get(
                "metrics", timeout=timeout, allow_redirects=False
            ) as response:
                self._quiet_looks = 0
                self._metrics = read_metrics(await response.text())

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return last_words(self._log.read_text(errors="replace"))
        return "none"


async def _finishes(task: asyncio.Task[Any], timeout_s: float) -> bool:
    done, _ = await asyncio.wait([task], timeout=timeout_s)
    return bool(done)
