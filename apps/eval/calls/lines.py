"""The lines of judgments/*.jsonl, field by field: JSON as it lies on disk, and nothing else."""

from typing import Literal, NamedTuple, NotRequired, TypedDict

Status = Literal["ok", "unparsed", "refused", "truncated"]


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int


class Bound(NamedTuple):
    """A call that is about to be sent, and the most that it should cost."""

    key: str
    usd: float
    judge: str


class IntentLine(TypedDict):
    """intents.jsonl: a call that is about to be sent, or one that certainly cost nothing."""

    key: str
    attempt: int
    usd: NotRequired[float]
    """what is set aside for it"""
    bound_usd: NotRequired[float]
    """the most it should cost, where that is less"""
    released: NotRequired[bool]


class ResponseLine(TypedDict):
    """raw.jsonl: what a judge said, for good."""

    key: str
    protocol: str
    question_id: str
    models: list[str]
    order: int
    repeat: int
    judge: str
    request_digest: str
    slot: str
    turn: int
    ask: int
    kind: str
    format: str
    scale: NotRequired[tuple[float, float]]
    """of ratings and scores, where it is not 1 to 10"""
    labels: NotRequired[dict[str, float]]
    """of a choice: what each is worth"""
    nonce: str
    response_text: str
    finish_reason: str
    usage: Usage
    usd: float
    """by the endpoint's count; the most it can have cost where there is no such count"""
    charged_usd: NotRequired[float]
    """what the budget is charged, where that is more"""
    is_estimated: NotRequired[bool]
    """the endpoint gave no count that can be true"""
    is_computed: NotRequired[bool]
    """no endpoint was asked"""
    created: float
    """seconds since 1970; 0 for imported judgments"""
    latency_s: NotRequired[float]
    endpoint_model: str
    fingerprint: str | None
    is_imported: NotRequired[bool]


def charged_usd(line: ResponseLine) -> float:
    """What a response took from the budget."""
    return line.get("charged_usd", line["usd"])


class ParsedLine(TypedDict):
    """parsed-<version>.jsonl: what a parser reads in a response."""

    key: str
    status: Status
    scores: NotRequired[list[float]]
    verdict: NotRequired[str]


class PlannedLine(TypedDict):
    """plan.jsonl: a judgment that the folder needs."""

    slot: str
    protocol: str
    question_id: str
    models: list[str]
    order: int
    repeat: int
    turn: int
    judge: str
    kind: str
    answers_digest: str | None
    """None where an answer is missing, so that nothing can be asked"""


Message = dict[str, str]
Parameters = dict[str, object]
"""temperature, max_tokens and what else stands in a request beside model and messages"""
