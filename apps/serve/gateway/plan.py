"""From a checked request to the sequences to generate and the answer to build from them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from apps.serve.answer.choices import ChatChoice, Head, TextChoice
from apps.serve.answer.generation import Job
from apps.serve.answer.position import Position
from apps.serve.engine.protocol import SamplingParams
from apps.serve.errors import ApiError
from apps.serve.model.entry import Entry
from apps.serve.model.served import ServedModel
from apps.serve.request.conversation import chat_digest, text_digest
from apps.serve.request.forced_call import ForcedCall
from apps.serve.request.prompts import chat_prompt, text_prompts
from apps.serve.request.sampling import num_choices, num_logprobs, sampling_params, stop_strings
from apps.serve.request.schemas import ChatRequest, CompletionRequest, Sampling
from apps.serve.request.tools import (
    MAX_CALLS,
    ToolParser,
    call_grammar,
    forced_name,
    is_forced,
    offered_functions,
    template_tools,
)

MAX_SEQUENCES = 256
"""prompts x n of one request; more of them should be several requests"""
USUAL_ANSWER_TOKENS = 256
MAX_PROMPT_LOGPROBS = 200_000
"""of one request; a gateway takes about a microsecond for each, and meanwhile does nothing else"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """An HTTP request as work for the engine."""

    head: Head
    object: str
    """the answer's `object`; a stream's chunks of a chat are `chat.completion.chunk`"""
    chunk_object: str
    jobs: Sequence[Job]
    choices: Sequence[ChatChoice | TextChoice]
    """one per job"""
    prompt_tokens: int
    most_tokens: int
    """at most in all: prompts and longest answers, or a guess where answers have no limit"""
    per_prompt: int
    """choices of each prompt; they stand together"""
    keep_best: int | None
    """best_of: per prompt, how many of its choices to return"""
    after: Position | None
    """what the client has of the stream already; None: nothing"""
    stream: bool
    include_usage: bool

    def owned_by(self, key: str) -> "Plan":
        """With ids of this key's own ("": of nobody's), so that no other key goes on with its
        stream, or ends it, by that stream's id."""
        if not key:
            return self
        owner = blake2b(key.encode(), digest_size=8).hexdigest()
        jobs = [dataclasses.replace(job, id=f"{owner}-{job.id}") for job in self.jobs]
        return dataclasses.replace(self, jobs=jobs)


def _most_tokens(prompt_tokens: int, params: Sequence[SamplingParams]) -> int:
    return prompt_tokens + sum(one.max_tokens or USUAL_ANSWER_TOKENS for one in params)


def chat_plan(body: ChatRequest, entry: Entry, after: Position | None) -> Plan:
    """`after` is where a broken stream goes on. Raises ApiError."""
    model = entry.model
    functions = offered_functions(body, model)
    count = num_choices(body.n or 1, model.config)
    head = _head("chatcmpl", model, after)
    prompt_ids = chat_prompt(body, model, template_tools(functions))
    params = sampling_params(body, model, count, head.seed)
    if is_forced(body):
        grammar = call_grammar(functions, forced_name(body))
        params = [dataclasses.replace(one, grammar=grammar) for one in params]
    names = [function.name for function in functions]
    return Plan(
        head=head,
        object="chat.completion",
        chunk_object="chat.completion.chunk",
        jobs=_jobs(
            body,
            model,
            head,
            [prompt_ids] * count,
            params,
            [chat_digest(body)] * count,
            _space(body, model),
            after is not None,
        ),
        choices=[
            ChatChoice(model, i, bool(body.logprobs), _parser(body, names)) for i in range(count)
        ],
        prompt_tokens=len(prompt_ids),
        most_tokens=_most_tokens(len(prompt_ids), params),
        per_prompt=count,
        keep_best=None,
        after=_checked(after, body, count),
        **_stream_fields(body),
    )


def completion_plan(body: CompletionRequest, entry: Entry, after: Position | None) -> Plan:
    """`after` is where a broken stream goes on. Raises ApiError."""
    model = entry.model
    n = body.n or 1
    best_of = max(body.best_of or n, n)
    if best_of > n and body.stream:
        raise ApiError(400, "best_of above n cannot be streamed.", param="best_of")
    per_prompt = num_choices(best_of, model.config)
    prompts = text_prompts(body, model)
    if len(prompts) * per_prompt > MAX_SEQUENCES:
        raise ApiError(
            400,
            f"{len(prompts)} prompts with {per_prompt} answers each are more than "
            f"{MAX_SEQUENCES} sequences; send several requests.",
            param="n",
        )
    sequences = [prompt for prompt in prompts for _ in range(per_prompt)]
    head = _head("cmpl", model, after)
    all_ids = [prompt.ids for prompt in sequences]
    params = sampling_params(body, model, per_prompt, head.seed) * len(prompts)
    is_prompt_only = bool(body.echo and body.logprobs is not None and body.max_tokens == 0)
    if body.echo and body.logprobs is not None:
        _check_prompt_logprobs(sum(map(len, all_ids)) * (body.logprobs + 1))
        params = [dataclasses.replace(one, prompt_logprobs=True) for one in params]
    if is_prompt_only:  # an engine that generates nothing computes nothing
        params = [dataclasses.replace(one, max_tokens=1) for one in params]
    if best_of > n and body.logprobs is None:
        params = [dataclasses.replace(one, logprobs=0) for one in params]
    return Plan(
        head=head,
        object="text_completion",
        chunk_object="text_completion",
        jobs=[
            dataclasses.replace(job, is_prompt_only=is_prompt_only)
            for job in _jobs(
                body,
                model,
                head,
                all_ids,
                params,
                [text_digest(body, ids) for ids in all_ids],
                "",
                after is not None,
            )
        ],
        choices=[
            TextChoice(model, i, num_logprobs(body) is not None, prompt if body.echo else None)
            for i, prompt in enumerate(sequences)
        ],
        prompt_tokens=(prompt_tokens := sum(len(prompt.ids) for prompt in prompts)),
        most_tokens=_most_tokens(prompt_tokens, params),
        per_prompt=per_prompt,
        keep_best=n if best_of > n else None,
        after=_checked(after, body, len(sequences)),
        **_stream_fields(body),
    )


def _head(prefix: str, model: ServedModel, after: Position | None) -> Head:
    name = model.config.name
    return Head.of(after.stream, name) if after is not None else Head.new(prefix, name)


def _checked(after: Position | None, body: Sampling, num_choices: int) -> Position | None:
    if after is not None and (not body.stream or len(after.places) != num_choices):
        raise ApiError(
            400, "The Last-Event-ID is of another request; send the one that it came with again."
        )
    return after


def _check_prompt_logprobs(number: int) -> None:
    if number > MAX_PROMPT_LOGPROBS:
        raise ApiError(
            400,
            f"echo with these logprobs asks for {number:,} log-probabilities of prompt tokens; at "
            f"most {MAX_PROMPT_LOGPROBS:,} here: send fewer tokens or lower logprobs.",
            param="logprobs",
        )


def _space(body: ChatRequest, model: ServedModel) -> str:
    """The space that the template puts before an answer, to be stripped; "" for a continued one."""
    begins = body.add_generation_prompt is not False and not body.continue_final_message
    return model.answer_space if begins else ""


def _parser(body: ChatRequest, names: list[str]) -> ToolParser | ForcedCall | None:
    if not names:
        return None
    if is_forced(body):
        return ForcedCall(names)
    return ToolParser(names, max_calls=1 if body.parallel_tool_calls is False else MAX_CALLS)


def _stream_fields(body: Sampling) -> dict[str, bool]:
    return {"stream": bool(body.stream), "include_usage": body.wants_usage}


def _jobs(
    body: Sampling,
    model: ServedModel,
    head: Head,
    prompt_ids: Sequence[tuple[int, ...]],
    params: Sequence[SamplingParams],
    conversations: Sequence[str],
    strip_space: str,
    is_resumed: bool,
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
            conversation=conversation,
            is_resumed=is_resumed,
        )
        for i, (ids, one, conversation) in enumerate(
            zip(prompt_ids, params, conversations, strict=True)
        )
    ]
