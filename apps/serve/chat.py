"""From a checked request to the sequences to generate and the answer to build from them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apps.common.errors import TemplateError
from apps.serve.answers import ChatChoice, Echo, Head, TextChoice
from apps.serve.directory import Entry
from apps.serve.errors import ApiError
from apps.serve.generation import Job
from apps.serve.models import ServedModel
from apps.serve.sampling import num_logprobs, sampling_params, stop_strings
from apps.serve.schemas import (
    MAX_PROMPTS,
    ChatRequest,
    CompletionRequest,
    OtherPart,
    Sampling,
    TextPart,
    TokenizeRequest,
)
from apps.serve.tools import (
    ToolParser,
    call_grammar,
    forced_name,
    is_forced,
    offered_functions,
    template_tools,
)

_FIM_TOKENS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<PRE>", "<SUF>", "<MID>"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """An HTTP request as work for the engine."""

    head: Head
    endpoint: str
    object: str
    """the answer's `object`; a stream's chunks of a chat are `chat.completion.chunk`"""
    chunk_object: str
    jobs: Sequence[Job]
    choices: Sequence[ChatChoice | TextChoice]
    """one per job"""
    prompt_tokens: int
    keep_best: int | None
    """best_of: per prompt, how many of its choices to return"""
    stream: bool
    include_usage: bool


def chat_plan(body: ChatRequest, entry: Entry) -> Plan:
    model = entry.model
    functions = offered_functions(body, model)
    prompt_ids = _chat_ids(
        body.messages,
        model,
        template_tools(functions) or None,
        bool(body.continue_final_message),
        body.add_generation_prompt,
    )
    num_choices = _num_choices(body.n or 1, model)
    params = sampling_params(body, model, num_choices)
    if is_forced(body):
        grammar = call_grammar(functions, forced_name(body))
        params = [dataclasses.replace(one, grammar=grammar) for one in params]
    head = Head.new("chatcmpl", model.config.name)
    names = [function.name for function in functions]
    return Plan(
        head=head,
        endpoint="chat",
        object="chat.completion",
        chunk_object="chat.completion.chunk",
        jobs=_jobs(body, model, head, [prompt_ids] * num_choices, params, model.answer_space),
        choices=[
            ChatChoice(model, i, bool(body.logprobs), ToolParser(names) if names else None)
            for i in range(num_choices)
        ],
        prompt_tokens=len(prompt_ids),
        keep_best=None,
        **_stream_fields(body),
    )


def completion_plan(body: CompletionRequest, entry: Entry) -> Plan:
    model = entry.model
    prompts = _prompts(body, model)
    n = body.n or 1
    best_of = max(body.best_of or n, n)
    if best_of > n and body.stream:
        raise ApiError(400, "best_of above n cannot be streamed.", param="best_of")
    per_prompt = _num_choices(best_of, model)
    prompt_ids = [ids for ids, _ in prompts for _ in range(per_prompt)]
    echoes = [(text, ids) for ids, text in prompts for _ in range(per_prompt)]
    params = sampling_params(body, model, per_prompt) * len(prompts)
    if best_of > n and body.logprobs is None:
        params = [dataclasses.replace(one, logprobs=0) for one in params]
    head = Head.new("cmpl", model.config.name)
    return Plan(
        head=head,
        endpoint="completions",
        object="text_completion",
        chunk_object="text_completion",
        jobs=_jobs(body, model, head, prompt_ids, params, ""),
        choices=[
            TextChoice(model, i, num_logprobs(body) is not None, Echo(*echo) if body.echo else None)
            for i, echo in enumerate(echoes)
        ],
        prompt_tokens=sum(len(ids) for ids, _ in prompts),
        keep_best=n if best_of > n else None,
        **_stream_fields(body),
    )


def tokenize(body: TokenizeRequest, model: ServedModel) -> dict[str, Any]:
    if (body.prompt is None) == (body.messages is None):
        raise ApiError(400, "Send either prompt or messages.", param="prompt")
    if body.messages is not None:
        ids = _chat_ids(body.messages, model, None, False, body.add_generation_prompt)
    else:
        _check_length(body.prompt or "", model, "prompt")
        ids = tuple(model.encode_text(body.prompt or ""))
    answer: dict[str, Any] = {
        "tokens": ids,
        "count": len(ids),
        "max_model_len": model.context_tokens,
    }
    if body.return_token_strs:
        answer["token_strs"] = [model.tokens.token_text(i) for i in ids]
    return answer


def _stream_fields(body: Sampling) -> dict[str, bool]:
    options = body.stream_options
    return {
        "stream": bool(body.stream),
        "include_usage": bool(options is not None and options.include_usage),
    }


def _jobs(
    body: Sampling,
    model: ServedModel,
    head: Head,
    prompt_ids: Sequence[tuple[int, ...]],
    params: Sequence[Any],
    strip_space: str,
) -> list[Job]:
    return [
        Job(
            id=f"{head.id}-{i}",
            model=model,
            prompt_ids=ids,
            params=one,
            stop=stop_strings(body),
            include_stop=bool(body.include_stop_str_in_output),
            strip_space=strip_space,
            cache_salt=body.cache_salt or "",
        )
        for i, (ids, one) in enumerate(zip(prompt_ids, params, strict=True))
    ]


def _num_choices(asked: int, model: ServedModel) -> int:
    limit = model.config.limits.max_choices
    if asked > limit:
        raise ApiError(400, f"n (or best_of) is {asked}; at most {limit} here.", param="n")
    return asked


def _chat_ids(
    messages: Sequence[Any],
    model: ServedModel,
    tools: list[dict[str, Any]] | None,
    continue_final_message: bool,
    add_generation_prompt: bool | None,
) -> tuple[int, ...]:
    wants_prompt = add_generation_prompt is not False and not continue_final_message
    plain = [_message(message, i) for i, message in enumerate(messages)]
    if continue_final_message and plain[-1]["role"] != "assistant":
        raise ApiError(
            400,
            "continue_final_message continues an assistant message, but the last one is "
            f"{plain[-1]['role']}.",
            param="continue_final_message",
        )
    _check_length("".join(message["content"] for message in plain), model, "messages")
    try:
        ids = model.encode_chat(
            plain,
            add_generation_prompt=wants_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
        )
    except TemplateError as error:
        raise ApiError(400, str(error), param="messages") from error
    return tuple(ids)


def _check_length(given: str | Sequence[int], model: ServedModel, param: str) -> None:
    """Refuse what cannot fit before tokenizing it, which takes seconds for megabytes."""
    is_text = isinstance(given, str)
    tokens = model.fewest_tokens(len(given)) if is_text else len(given)
    context = model.context_tokens
    if context is not None and tokens >= context:
        raise ApiError(
            400,
            f"The prompt has {'at least ' if is_text else ''}{tokens:,} tokens and the context is "
            f"{context:,}, which must also hold the answer; shorten the prompt.",
            param=param,
            code="context_length_exceeded",
        )


def _message(message: Any, index: int) -> dict[str, Any]:
    """A message as chat templates expect it."""
    role = "system" if message.role == "developer" else message.role
    plain: dict[str, Any] = {
        "role": "tool" if role == "function" else role,
        "content": _content(message.content, index),
    }
    if role == "assistant" and message.tool_calls:
        plain["tool_calls"] = [call.model_dump(exclude={"index"}) for call in message.tool_calls]
    if role == "tool":
        plain["tool_call_id"] = message.tool_call_id
    if getattr(message, "name", None):
        plain["name"] = message.name
    return plain


def _content(content: Any, index: int) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for position, part in enumerate(content):
        if isinstance(part, OtherPart):
            raise ApiError(
                400,
                f"The model reads text only, not {part.type}.",
                param=f"messages[{index}].content[{position}]",
                code="unsupported_content",
            )
    return "".join(p.text if isinstance(p, TextPart) else p.refusal for p in content)


def _prompts(body: CompletionRequest, model: ServedModel) -> list[tuple[tuple[int, ...], str]]:
    """(ids, text) of each prompt."""
    given = body.prompt
    is_one = isinstance(given, str) or (len(given) > 0 and isinstance(given[0], int))
    items: list[Any] = [given] if is_one else list(given)
    if not items:
        raise ApiError(400, f"prompt is empty; send 1 to {MAX_PROMPTS} prompts.", param="prompt")
    return [_prompt(item, body.suffix, model) for item in items]


def _prompt(
    item: str | list[int], suffix: str | None, model: ServedModel
) -> tuple[tuple[int, ...], str]:
    backend = model.tokenizer.backend
    _check_length(item + (suffix or "") if isinstance(item, str) else item, model, "prompt")
    if isinstance(item, str):
        ids = _fill_in(item, suffix, model) if suffix else model.encode_text(item)
        text = item
    else:
        vocabulary = backend.get_vocab_size()
        if any(i >= vocabulary for i in item):
            raise ApiError(
                400, f"prompt has token ids outside 0 to {vocabulary - 1}.", param="prompt"
            )
        ids, text = item, backend.decode(item)
    if not ids:
        raise ApiError(400, "A prompt is empty; it needs at least one token.", param="prompt")
    return tuple(ids), text


def _fill_in(prefix: str, suffix: str, model: ServedModel) -> list[int]:
    """A prompt for models trained to fill in the middle (Bavarian et al., arXiv 2207.14255)."""
    backend = model.tokenizer.backend
    for names in _FIM_TOKENS:
        marks = [i for name in names if (i := backend.token_to_id(name)) is not None]
        if len(marks) == len(names):
            before = backend.encode(prefix, add_special_tokens=False).ids
            after = backend.encode(suffix, add_special_tokens=False).ids
            return [marks[0], *before, marks[1], *after, marks[2]]
    raise ApiError(
        400,
        f"The model {model.config.name!r} was not trained to insert text; send no suffix.",
        param="suffix",
        code="unsupported_parameter",
    )
