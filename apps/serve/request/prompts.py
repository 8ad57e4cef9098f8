"""Token ids of what a client sent: messages, texts, or ids; refused before tokenizing where they
cannot fit, because tokenizing megabytes takes seconds.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from apps.common.errors import TemplateError
from apps.serve.errors import ApiError
from apps.serve.model.served import ServedModel
from apps.serve.request.schemas import (
    MAX_PROMPTS,
    AssistantMessage,
    ChatRequest,
    CompletionRequest,
    OtherPart,
    TextPart,
    TokenizeRequest,
)

_FIM_TOKENS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<PRE>", "<SUF>", "<MID>"),
)


class Prompt(NamedTuple):
    ids: tuple[int, ...]
    text: str


def chat_prompt(
    body: ChatRequest, model: ServedModel, tools: list[dict[str, Any]]
) -> tuple[int, ...]:
    """Ids of a conversation, ready to be answered."""
    open_end = bool(body.continue_final_message)
    if open_end and body.add_generation_prompt:
        raise ApiError(
            400,
            "continue_final_message leaves the last message open, add_generation_prompt begins "
            "a new one; send one of them.",
            param="add_generation_prompt",
        )
    ids = _chat_ids(body, body.messages, model, tools or None, open_end)
    _check_fits(len(ids), model, "messages")
    return ids


def text_prompts(body: CompletionRequest, model: ServedModel) -> list[Prompt]:
    given = body.prompt
    is_one = isinstance(given, str) or (len(given) > 0 and isinstance(given[0], int))
    items: list[Any] = [given] if is_one else list(given)
    if not items:
        raise ApiError(400, f"prompt is empty; send 1 to {MAX_PROMPTS} prompts.", param="prompt")
    prompts = [
        _of_text(item, body.suffix, model) if isinstance(item, str) else _of_ids(item, model)
        for item in items
    ]
    for prompt in prompts:
        if not prompt.ids:
            raise ApiError(400, "A prompt is empty; it needs at least one token.", param="prompt")
        _check_fits(len(prompt.ids), model, "prompt")
    return prompts


def tokenize(body: TokenizeRequest, model: ServedModel) -> dict[str, Any]:
    """What /tokenize answers."""
    if (body.prompt is None) == (body.messages is None):
        raise ApiError(400, "Send either prompt or messages.", param="prompt")
    if body.messages is not None:
        ids = _chat_ids(body, body.messages, model, None, False)
    else:
        ids = _of_text(body.prompt or "", None, model).ids
    answer: dict[str, Any] = {
        "tokens": ids,
        "count": len(ids),
        "max_model_len": model.context_tokens,
    }
    if body.return_token_strs:
        answer["token_strs"] = [model.tokens.token_text(i) for i in ids]
    return answer


def _chat_ids(
    body: ChatRequest | TokenizeRequest,
    messages: Sequence[Any],
    model: ServedModel,
    tools: list[dict[str, Any]] | None,
    continue_final_message: bool,
) -> tuple[int, ...]:
    plain = [_message(message, i) for i, message in enumerate(messages)]
    _match_function_results(messages, plain)
    if continue_final_message and plain[-1]["role"] != "assistant":
        raise ApiError(
            400,
            "continue_final_message continues an assistant message, but the last one is "
            f"{plain[-1]['role']}.",
            param="continue_final_message",
        )
    _check_may_fit(sum(len(message["content"]) for message in plain), model, "messages")
    try:
        text = model.render_chat(
            plain,
            add_generation_prompt=body.add_generation_prompt is not False
            and not continue_final_message,
            continue_final_message=continue_final_message,
            tools=tools,
            break_role_marks=model.config.break_role_marks
            if body.break_role_marks is None
            else body.break_role_marks,
        )
    except TemplateError as error:
        raise ApiError(400, str(error), param="messages") from error
    _check_may_fit(len(text), model, "messages")
    return tuple(model.encode(text, special_tokens=False))


def _of_text(text: str, suffix: str | None, model: ServedModel) -> Prompt:
    _check_may_fit(len(text) + len(suffix or ""), model, "prompt")
    ids = _fill_in(text, suffix, model) if suffix else model.encode(text)
    return Prompt(tuple(ids), text)


def _of_ids(ids: list[int], model: ServedModel) -> Prompt:
    _check_fits(len(ids), model, "prompt")
    backend = model.tokenizer.backend
    vocabulary = backend.get_vocab_size()
    if any(i >= vocabulary for i in ids):
        raise ApiError(400, f"prompt has token ids outside 0 to {vocabulary - 1}.", param="prompt")
    return Prompt(tuple(ids), backend.decode(ids))


def _check_may_fit(num_chars: int, model: ServedModel, param: str) -> None:
    """Refuse a text that has too many tokens however it is cut."""
    _check_fits(model.fewest_tokens(num_chars), model, param, "at least ")


def _check_fits(num_tokens: int, model: ServedModel, param: str, precision: str = "") -> None:
    context = model.context_tokens
    if context is not None and num_tokens >= context:
        raise ApiError(
            400,
            f"The prompt has {precision}{num_tokens:,} tokens and the context is {context:,}, "
            "which must also hold the answer; shorten the prompt.",
            param=param,
            code="context_length_exceeded",
        )


def _message(message: Any, index: int) -> dict[str, Any]:
    """A message as chat templates expect it."""
    role = "system" if message.role == "developer" else message.role
    plain: dict[str, Any] = {
        "role": "tool" if role == "function" else role,
        "content": message_text(message, index),
    }
    if role == "assistant":
        if calls := _calls(message, index):
            plain["tool_calls"] = calls
        if message.reasoning_content:
            plain["reasoning_content"] = message.reasoning_content
    if role == "tool":
        plain["tool_call_id"] = message.tool_call_id
    if getattr(message, "name", None):
        plain["name"] = message.name
    return plain


def _calls(message: AssistantMessage, index: int) -> list[dict[str, Any]]:
    """`function_call` is what a single tool call was before there were several."""
    calls = [call.model_dump(exclude={"index"}) for call in message.tool_calls or ()]
    if message.function_call is None:
        return calls
    if calls:
        raise ApiError(
            400,
            "A message has tool_calls and function_call; send tool_calls only.",
            param=f"messages[{index}].function_call",
        )
    function = message.function_call.model_dump()
    return [{"id": _call_id(index), "type": "function", "function": function}]


def _call_id(index: int) -> str:
    """Nine letters and digits, as Mistral's templates insist on."""
    return f"call{index:05d}"


def _match_function_results(messages: Sequence[Any], plain: Sequence[dict[str, Any]]) -> None:
    """Give a message of the role `function` the id of the last call of its function."""
    last_calls: dict[str, str] = {}
    for index, message in enumerate(messages):
        if message.role == "assistant" and message.function_call is not None:
            last_calls[message.function_call.name] = _call_id(index)
        elif message.role == "function" and message.name in last_calls:
            plain[index]["tool_call_id"] = last_calls[message.name]


def message_text(message: Any, index: int) -> str:
    """What the `index`-th message says. Raises ApiError 400 where it holds anything but text."""
    text = _content(message.content, index)
    return text or (message.role == "assistant" and message.refusal) or ""


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


def _fill_in(prefix: str, suffix: str, model: ServedModel) -> list[int]:
    """A prompt for models trained to fill in the middle (Bavarian et al., arXiv 2207.14255)."""
    backend = model.tokenizer.backend
    for names in _FIM_TOKENS:
        marks = [i for name in names if (i := backend.token_to_id(name)) is not None]
        if len(marks) == len(names):
            before = model.encode(prefix, special_tokens=False)
            after = model.encode(suffix, special_tokens=False)
            return [marks[0], *before, marks[1], *after, marks[2]]
    raise ApiError(
        400,
        f"The model {model.config.name!r} was not trained to insert text; send no suffix.",
        param="suffix",
        code="unsupported_parameter",
    )
