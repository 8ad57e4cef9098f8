"""Names and schemas of everything that lies on disk between the apps.

Parquet files have Arrow schemas, JSON lines have JSON schemas (draft 2020-12). `tests/contracts`
holds one tiny artifact of each, which every writer and reader passes.
"""

# pyarrow carries no types:
# pyright: reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false

import re

import pyarrow as pa

LEDGER_NAME = "ledger.json"
PACK_NAME = "pack.json"
LINEAGE_NAME = "lineage.json"
METRICS_NAME = "metrics.jsonl"
DROPPED_DIR = "dropped"
QUARANTINE_DIR = "quarantine"
CHECKPOINTS_DIR = "checkpoints"
JUDGMENTS_DIR = "judgments"

_CHECKPOINT = re.compile(r"step-(\d{8})")


def checkpoint_name(step: int) -> str:
    """Folder of the checkpoint after `step` optimizer steps, so that names sort like numbers."""
    return f"step-{step:08d}"


def checkpoint_step(name: str) -> int | None:
    """Inverse of `checkpoint_name`; None for another name."""
    match = _CHECKPOINT.fullmatch(name)
    return int(match[1]) if match else None


ROLES = ("system", "user", "assistant", "tool")

MESSAGE = pa.struct(
    [
        pa.field("role", pa.string(), nullable=False),
        pa.field("content", pa.string(), nullable=False),
        pa.field("weight", pa.float32()),
        pa.field("tool_calls", pa.string()),
        pa.field("tool_call_id", pa.string()),
        pa.field("name", pa.string()),
    ]
)
"""`weight` 0 keeps an answer in the context and out of the loss; null is 1. `tool_calls` is the
JSON of an assistant's calls, `tool_call_id` and `name` are those of a tool's turn."""

CONVERSATIONS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("messages", pa.list_(MESSAGE), nullable=False),
        pa.field("model", pa.string()),
        pa.field("language", pa.string()),
        pa.field("scores", pa.map_(pa.string(), pa.float32())),
        pa.field("tools", pa.string()),
    ]
)
"""Clean conversations: one row per source conversation. `id` is the source digest and ordinal.

`tools` is the JSON of the functions that the assistant could call.
"""

DROPPED = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("record", pa.string(), nullable=False),
    ]
)
"""Records that a rule dropped; `record` is the raw JSON."""

QUARANTINE = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("start_byte", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("raw", pa.binary(), nullable=False),
    ]
)
"""Records that could not be read at all; `raw` holds their bytes."""


def packed_schema(max_length: int) -> pa.Schema:
    """Packed rows of `max_length` tokens. `lengths` has one entry per conversation segment."""
    return pa.schema(
        [
            pa.field("input_ids", pa.list_(pa.int32(), max_length), nullable=False),
            pa.field("loss_mask", pa.list_(pa.bool_(), max_length), nullable=False),
            pa.field("lengths", pa.list_(pa.int32()), nullable=False),
        ]
    )


def _object(
    required: dict[str, object], optional: dict[str, object] | None = None
) -> dict[str, object]:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
    }


_STRING = {"type": "string"}
_TEXTS = {"type": "array", "items": _STRING, "minItems": 1}
_COUNT = {"type": "integer", "minimum": 0}
_USAGE = _object({"prompt_tokens": _COUNT, "completion_tokens": _COUNT})
_QUESTION_ID = {"type": ["string", "integer"]}

QUESTION = _object(
    {"question_id": _QUESTION_ID, "category": _STRING, "turns": _TEXTS},
    {"reference": {"type": "array", "items": _STRING}},
)
"""One line of a questions file. `reference` has the reference answer of each turn."""

ANSWER = _object(
    {
        "question_id": _QUESTION_ID,
        "turn_texts": _TEXTS,
        "model": _STRING,
        "endpoint_model": _STRING,
        "sampling": {"type": "object"},
        "usage": _USAGE,
        "finish_reasons": {"type": "array", "items": _STRING},
        "created": {"type": "number"},
    }
)
"""One line of answers/<model>.jsonl."""

JUDGMENT = _object(
    {
        "key": _STRING,
        "protocol": _STRING,
        "question_id": _QUESTION_ID,
        "models": {"type": "array", "items": _STRING, "minItems": 1, "maxItems": 2},
        "order": _COUNT,
        "repeat": _COUNT,
        "judge": _STRING,
        "request_digest": _STRING,
        "response_text": _STRING,
        "finish_reason": {"type": ["string", "null"]},
        "usage": _USAGE,
        "usd": {"type": "number", "minimum": 0},
        "created": {"type": "number"},
    }
)
"""One line of judgments/raw.jsonl: appended and fsynced, never changed."""

PARSED = _object(
    {"key": _STRING, "status": {"enum": ["ok", "unparsed", "refused", "truncated"]}},
    {
        "scores": {"type": "array", "items": {"type": "number"}},
        "verdict": _STRING,
    },
)
"""One line of judgments/parsed-<parser version>.jsonl."""
