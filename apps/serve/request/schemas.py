"""Bodies of the OpenAI requests, with the bounds of every field.

Sources: https://platform.openai.com/docs/api-reference/chat/create and .../completions/create.
Fields of OpenAI's that cannot change the answer here are accepted and ignored; fields that would
change it and cannot be honoured are refused, and so are fields that nobody knows.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
)

MAX_MESSAGES = 4096
MAX_PARTS = 8192
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_PROMPTS = 128
MAX_PROMPT_TOKENS = 1 << 20
MAX_TEXT_CHARS = 8 << 20
MAX_TOOLS = 128
MAX_TOOL_CALLS = 128
MAX_SCHEMA_DEPTH = 24
MAX_SCHEMA_NODES = 4096
MAX_TOKENS = 2**31 - 1
MAX_LOGIT_BIAS = 1024

Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Short = Annotated[str, StringConstraints(max_length=512)]
FunctionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP_CHARS)]
Stops = Annotated[list[Stop], Field(max_length=MAX_STOPS)]
TokenIds = Annotated[
    list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=MAX_PROMPT_TOKENS, fail_fast=True)
]
Count = Annotated[int, Field(ge=0, le=MAX_TOKENS)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(Body):
    type: Literal["text"]
    text: Text


class RefusalPart(Body):
    type: Literal["refusal"]
    refusal: Text


class OtherPart(Body):
    """Kept whole for a model elsewhere; of one here, the error says that it reads text only."""

    model_config = ConfigDict(extra="allow", strict=True)
    type: Literal["image_url", "input_audio", "file"]


Part = Annotated[TextPart | RefusalPart | OtherPart, Field(discriminator="type")]
Content = Text | Annotated[list[Part], Field(max_length=256, fail_fast=True)]


class FunctionCall(Body):
    name: FunctionName
    arguments: Text


class ToolCall(Body):
    id: Name
    type: Literal["function"] = "function"
    function: FunctionCall
    index: Count | None = None


class SystemMessage(Body):
    role: Literal["system", "developer"]
    content: Content
    name: Short | None = None


class UserMessage(Body):
    role: Literal["user"]
    content: Content
    name: Short | None = None


class AssistantMessage(Body):
    role: Literal["assistant"]
    content: Content | None = None
    name: Short | None = None
    refusal: Text | None = None
    tool_calls: (
        Annotated[list[ToolCall], Field(max_length=MAX_TOOL_CALLS, fail_fast=True)] | None
    ) = None
    function_call: FunctionCall | None = None
    audio: None = None
    annotations: list[Any] | None = Field(default=None, max_length=256)
    reasoning_content: Text | None = None


class ToolMessage(Body):
    role: Literal["tool"]
    content: Content
    tool_call_id: Name
    name: Short | None = None


class FunctionMessage(Body):
    role: Literal["function"]
    content: Text | None
    name: FunctionName


def bounded_parts(messages: Any) -> Any:
    """The messages themselves, unless checking their parts one by one would take long: pydantic
    checks some 80,000 a second, and nothing else runs meanwhile."""
    if isinstance(messages, list):
        parts = (m.get(k) for m in messages if isinstance(m, dict) for k in _PART_LISTS)
        if sum(len(p) for p in parts if isinstance(p, list)) > MAX_PARTS:
            raise ValueError(f"the messages have more than {MAX_PARTS} parts and tool calls")
    return messages


_PART_LISTS = ("content", "tool_calls", "annotations")


ChatMessage = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage,
    Field(discriminator="role"),
]


class Function(Body):
    name: FunctionName
    description: Annotated[str, StringConstraints(max_length=16_384)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @field_validator("parameters")
    @classmethod
    def _bounded(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if value is None else bounded_schema(value)


class Tool(Body):
    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    name: FunctionName


class NamedTool(Body):
    type: Literal["function"]
    function: NamedFunction


class TextFormat(Body):
    type: Literal["text"]


class JsonObjectFormat(Body):
    type: Literal["json_object"]


class JsonSchema(Body):
    name: FunctionName
    description: Annotated[str, StringConstraints(max_length=16_384)] | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    @field_validator("schema_")
    @classmethod
    def _bounded(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if value is None else bounded_schema(value)


class JsonSchemaFormat(Body):
    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")
]


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Sampling(Body):
    """Fields that both endpoints share."""

    model: Name
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[Short, float] | None = Field(default=None, max_length=MAX_LOGIT_BIAS)
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Stops | None = None

    # Beyond OpenAI's, with the names that vLLM gave them.
    top_k: Annotated[int, Field(ge=-1, le=MAX_TOKENS)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10, allow_inf_nan=False)] | None = None
    min_tokens: Count | None = None
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[Count], Field(max_length=64)] | None = None
    include_stop_str_in_output: bool | None = None
    cache_salt: Short | None = None

    # Accepted and ignored: they do not change the answer.
    user: Short | None = None
    metadata: dict[str, Any] | None = Field(default=None, max_length=64)
    store: bool | None = None
    service_tier: Short | None = None
    safety_identifier: Short | None = None
    prompt_cache_key: Short | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: Short | None = None

    @property
    def wants_usage(self) -> bool:
        """At the end of a stream."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @field_validator("logit_bias")
    @classmethod
    def _bias(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for token, bias in (value or {}).items():
            if not -100 <= bias <= 100:
                raise ValueError(f"the bias of token {token[:32]!r} is not from -100 to 100")
            # A bias of 0 on a name that is no token changes nothing, whoever sends it.
            if bias != 0 and not (token.isascii() and token.isdigit() and len(token) < 10):
                raise ValueError(f"{token[:32]!r} is not a token id")
        return value


Messages = Annotated[
    list[ChatMessage],
    Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True),
    BeforeValidator(bounded_parts),
]


class ChatRequest(Sampling):
    messages: Messages
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[Function], Field(max_length=MAX_TOOLS)] | None = None
    function_call: Literal["none", "auto"] | NamedFunction | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None

    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    break_role_marks: bool | None = None
    """Of this server alone; see ModelConfig."""

    audio: dict[str, Any] | None = None
    """Concerns the audio modality only, which `modalities` refuses."""
    prediction: dict[str, Any] | None = None
    """Speeds an answer up elsewhere; never changes it."""


class CompletionRequest(Sampling):
    prompt: (
        Text
        | TokenIds
        | Annotated[list[Text], Field(max_length=MAX_PROMPTS, fail_fast=True)]
        | Annotated[list[TokenIds], Field(max_length=MAX_PROMPTS, fail_fast=True)]
    )
    suffix: Text | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: Annotated[int, Field(ge=0, le=128)] | None = None
    response_format: ResponseFormat | None = None


class TokenizeRequest(Body):
    model: Name
    prompt: Text | None = None
    messages: Messages | None = None
    add_generation_prompt: bool | None = None
    break_role_marks: bool | None = None
    return_token_strs: bool | None = None


def bounded_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, unless it is nested or long enough to be an attack."""
    level: list[Any] = [schema]
    nodes = 0
    for _ in range(MAX_SCHEMA_DEPTH):
        nodes += len(level)
        if nodes > MAX_SCHEMA_NODES:
            raise ValueError(f"the schema has more than {MAX_SCHEMA_NODES} values")
        level = [child for node in level for child in _children(node)]
        if not level:
            return schema
    raise ValueError(f"the schema is nested deeper than {MAX_SCHEMA_DEPTH} levels")


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []
