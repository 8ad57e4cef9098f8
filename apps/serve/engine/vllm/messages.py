"""What is said to a vLLM server, and how its answers are read: its command line, the body of a
completion, its events, metrics and log."""

import re
import sys
from collections.abc import Mapping
from typing import Any

from apps.common.errors import CriaError
from apps.serve.engine.config import VllmConfig
from apps.serve.engine.protocol import EngineInfo, Request, Step, TokenLogprob

ADAPTER = "adapter"
"""the name under which a LoRA adapter is served"""
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
        command += ["--enable-lora", "--lora-modules", f"{ADAPTER}={config.lora}"]
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
        # Its own field for those of the prompt is refused for streams; an echoed prompt has them.
        body["echo"] = params.prompt_logprobs and not request.generated_ids
    if params.grammar is not None:
        is_schema = params.grammar.kind == "json_schema"
        schema = params.grammar.text if is_schema else '{"type": "object"}'
        body["structured_outputs"] = {"json": schema}
    if request.cache_salt:
        body["cache_salt"] = request.cache_salt
    return body


def read_step(event: Mapping[str, Any], request: Request, info: EngineInfo) -> Step | None:
    """One event of the stream as a step; None when it holds neither a token nor an end.

    The log-probabilities of an echoed prompt stand before those of the first tokens; its first
    token has none.
    """
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
    scored = _read_logprobs(choice.get("logprobs"), request.params.logprobs)
    num_echoed = max(0, len(scored) - len(token_ids))
    of_prompt, logprobs = scored[1:num_echoed], scored[num_echoed:]
    if reason == "stop":
        token_ids = _with_stop_token(token_ids, choice.get("stop_reason"), request, info)
    if not token_ids and reason is None and not of_prompt:
        return None
    return Step(request.id, token_ids, logprobs, reason, prompt_logprobs=of_prompt)


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
