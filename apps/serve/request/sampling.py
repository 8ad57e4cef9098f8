"""From OpenAI's parameters to the engine's."""

import orjson

from apps.serve.config import ModelConfig
from apps.serve.engine.protocol import Grammar, SamplingParams
from apps.serve.errors import ApiError
from apps.serve.model.served import ServedModel
from apps.serve.request.schemas import (
    ChatRequest,
    CompletionRequest,
    JsonSchemaFormat,
    ResponseFormat,
    Sampling,
)

_SEED_STEP = 0x9E3779B97F4A7C15  # golden ratio: choices of one request draw unrelated numbers


def sampling_params(
    body: ChatRequest | CompletionRequest, model: ServedModel, count: int, drawn_seed: int
) -> list[SamplingParams]:
    """Parameters of each choice; they differ in their seeds only."""
    seed = body.seed if body.seed is not None else drawn_seed
    shared = {
        "max_tokens": max_tokens(body, model.config),
        "min_tokens": body.min_tokens or 0,
        "temperature": _first(body.temperature, model.defaults.get("temperature"), 1.0),
        "top_p": _first(body.top_p, model.defaults.get("top_p"), 1.0),
        "top_k": max(0, int(_first(body.top_k, model.defaults.get("top_k"), 0))),
        "min_p": _first(body.min_p, model.defaults.get("min_p"), 0.0),
        "presence_penalty": body.presence_penalty or 0.0,
        "frequency_penalty": body.frequency_penalty or 0.0,
        "repetition_penalty": _first(
            body.repetition_penalty, model.defaults.get("repetition_penalty"), 1.0
        ),
        "logit_bias": {int(t): b for t, b in (body.logit_bias or {}).items() if b != 0},
        "stop_token_ids": tuple(sorted({*(body.stop_token_ids or ()), *model.eos_token_ids}))
        if not body.ignore_eos
        else tuple(body.stop_token_ids or ()),
        "ignore_eos": bool(body.ignore_eos),
        "logprobs": num_logprobs(body),
        "grammar": _grammar(body.response_format),
    }
    return [SamplingParams(seed=_choice_seed(seed, i), **shared) for i in range(count)]


def max_tokens(body: Sampling, model: ModelConfig) -> int | None:
    """Longest answer in tokens; None lets it fill the context."""
    asked, name = body.max_tokens, "max_tokens"
    if isinstance(body, ChatRequest) and body.max_completion_tokens is not None:
        asked, name = body.max_completion_tokens, "max_completion_tokens"
    limit = model.limits.max_output_tokens
    if isinstance(body, CompletionRequest) and asked is None:
        asked = min(16, limit or 16)  # OpenAI's default
    if asked is not None and (body.min_tokens or 0) > asked:
        raise ApiError(
            400,
            f"min_tokens is {body.min_tokens}, more than {name}, which is {asked}.",
            param="min_tokens",
        )
    if limit is not None and asked is not None and asked > limit:
        raise ApiError(
            400,
            f"{name} is {asked}; the model {model.name!r} answers with at most {limit} tokens.",
            param=name,
        )
    return asked if asked is not None else limit


def num_choices(asked: int, model: ModelConfig) -> int:
    limit = model.limits.max_choices
    if asked > limit:
        raise ApiError(400, f"n (or best_of) is {asked}; at most {limit} here.", param="n")
    return asked


def num_logprobs(body: ChatRequest | CompletionRequest) -> int | None:
    if isinstance(body, CompletionRequest):
        return body.logprobs
    if body.top_logprobs and not body.logprobs:
        raise ApiError(400, "top_logprobs is set, so logprobs must be true.", param="top_logprobs")
    return (body.top_logprobs or 0) if body.logprobs else None


def stop_strings(body: Sampling) -> tuple[str, ...]:
    if body.stop is None:
        return ()
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)


def _grammar(response_format: ResponseFormat | None) -> Grammar | None:
    if response_format is None or response_format.type == "text":
        return None
    if isinstance(response_format, JsonSchemaFormat):
        schema = response_format.json_schema.schema_
        return Grammar(kind="json_schema", text=orjson.dumps(schema or {}).decode())
    return Grammar(kind="json_object")


def _choice_seed(seed: int, index: int) -> int:
    mixed = (seed + index * _SEED_STEP) & (2**64 - 1)
    return mixed - 2**64 if mixed >= 2**63 else mixed


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)
