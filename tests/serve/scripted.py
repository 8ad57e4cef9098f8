"""An engine that says what a test tells it to, one token per step, and keeps what it was asked."""

import asyncio
from collections import Counter
from collections.abc import Callable

from apps.serve.engine.protocol import (
    Capacity,
    EngineInfo,
    Outbox,
    OverloadedError,
    Request,
    RequestError,
    Step,
    TokenLogprob,
)
from apps.serve.model.served import ServedModel

Script = Callable[[Request], list[int]]


class ScriptedEngine:
    """`script(request)` gives the token ids of the answer; the end token is added."""

    info = EngineInfo(model="scripted", context_tokens=512, vocab_size=300, eos_token_ids=(1,))

    def __init__(
        self, script: Script, step_s: float = 0.0, max_waiting: int = 100, end: int = 1
    ) -> None:
        self.script = script
        self.end = end
        self.step_s = step_s
        self.max_waiting = max_waiting
        self.requests: list[Request] = []
        self.logprob_of: Callable[[Request, int], float] = lambda request, token: -0.5
        self.breaks_with = ""
        self.silent = False
        self.cached_tokens = 0
        self.cancelled: list[str] = []
        self.steps_of: Counter[str] = Counter()
        self.running: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None: ...

    async def submit(self, request: Request, outbox: Outbox) -> None:
        if len(request.prompt_ids) >= self.info.context_tokens:
            raise RequestError(
                f"the prompt has {len(request.prompt_ids)} tokens, the context {512}",
                "messages",
                "context_length_exceeded",
            )
        if len(self.running) >= self.max_waiting:
            raise OverloadedError("the queue is full", 3.0)
        self.requests.append(request)
        self.running[request.id] = asyncio.create_task(self._run(request, outbox))

    async def _run(self, request: Request, outbox: Outbox) -> None:
        try:
            if self.breaks_with:
                outbox.put([Step(request.id, (), finish_reason="error", error=self.breaks_with)])
                return
            answer = [*self.script(request), self.end]
            limit = request.params.max_tokens or self.info.context_tokens
            start = len(request.generated_ids)
            for index, token in enumerate(answer[start:limit], start):
                await asyncio.sleep(self.step_s)
                self.steps_of[request.id] += 1
                finish = "stop" if token == self.end else "length" if index + 1 == limit else None
                cached = self.cached_tokens if index == start else 0
                step = Step(request.id, (token,), self._logprobs(request, token), finish, cached)
                if request.params.prompt_logprobs and index == 0:
                    scored = [self._logprobs(request, i)[0] for i in request.prompt_ids[1:]]
                    step = step._replace(prompt_logprobs=tuple(scored))
                outbox.put([step])
        except asyncio.CancelledError:
            outbox.put([Step(request.id, (), finish_reason="cancelled")])
        finally:
            del self.running[request.id]

    def _logprobs(self, request: Request, token: int) -> tuple[TokenLogprob, ...]:
        count = request.params.logprobs
        if count is None:
            return ()
        logprob = self.logprob_of(request, token)
        return (TokenLogprob(logprob, tuple((token + i, logprob - i) for i in range(count))),)

    def cancel(self, request_id: str) -> None:
        if task := self.running.get(request_id):
            self.cancelled.append(request_id)
            task.cancel()

    def capacity(self) -> Capacity:
        return Capacity(
            running=len(self.running),
            waiting=0,
            max_running=8,
            max_waiting=self.max_waiting,
            kv_used_tokens=0,
            kv_total_tokens=4096,
        )

    def check_health(self) -> None: ...

    def is_silent(self) -> bool:
        return self.silent

    def metrics(self) -> dict[str, float]:
        return {"steps_total": 1.0}

    async def close(self) -> None: ...


def going_on(served: ServedModel, says: str, step_s: float) -> ScriptedEngine:
    """Says the text, from where the prompt's answer has come to."""
    backend = served.tokenizer.backend

    def script(request: Request) -> list[int]:
        asked = backend.decode(list(request.prompt_ids), skip_special_tokens=False)
        begun = asked.rpartition("<|im_start|>assistant\n")[2]
        assert says.startswith(begun), f"{begun!r} is nothing that {says!r} goes on with"
        return backend.encode(says[len(begun) :]).ids

    return ScriptedEngine(script, step_s)
