"""One planned judge call: what is asked, about whom, under which key its response is stored."""

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from apps.eval.judging.parsing import Format


def digest(*parts: Any) -> str:
    """blake2b-128 of a canonical JSON form."""
    return hashlib.blake2b(
        orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=16
    ).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A judge call before it is sent. `models` is in listed order; `order` 1 shows them swapped."""

    protocol: str
    question_id: str
    category: str
    models: tuple[str, ...]
    order: int
    repeat: int
    turn: int
    judge: str
    messages: tuple[dict[str, str], ...]
    parameters: dict[str, Any]
    """temperature, max_tokens and what else is sent to the judge"""
    fmt: Format
    nonce: str
    answers_digest: str
    ask: int = 0
    """0 at first; a response that cannot be read is asked for again as 1, 2, ..."""
    kind: str = "contest"
    """contest, canary (the better answer is known) or self (the same answer twice)"""
    exhibits: dict[str, Any] | None = None
    """question, reference and answers in displayed order, for judges that compute"""

    @property
    def key(self) -> str:
        return digest(
            self.judge,
            self.parameters,
            self.messages,
            self.answers_digest,
            self.order,
            self.repeat,
            self.ask,
        )

    @property
    def slot(self) -> str:
        """The same for all asks of one judgment."""
        return digest(
            self.judge, self.messages, self.answers_digest, self.order, self.repeat, self.turn
        )

    @property
    def prompt_bytes(self) -> int:
        return sum(len(message["content"].encode()) for message in self.messages)

    @property
    def max_tokens(self) -> int:
        return int(self.parameters["max_tokens"])

    def prompt_tokens_estimate(self) -> int:
        """English averages 4.3 bytes a token under GPT's tokenizers."""
        return int(self.prompt_bytes / 4.3) + 8 * len(self.messages)

    def prompt_tokens_bound(self) -> int:
        """A byte-level tokenizer never makes more tokens than bytes; 16 a message for framing."""
        return self.prompt_bytes + 16 * len(self.messages)

    def raw_record(self, **response: Any) -> dict[str, Any]:
        """The line of judgments/raw.jsonl."""
        return {
            "key": self.key,
            "protocol": self.protocol,
            "question_id": self.question_id,
            "models": list(self.models),
            "order": self.order,
            "repeat": self.repeat,
            "judge": self.judge,
            "request_digest": digest(self.messages, self.parameters),
            "slot": self.slot,
            "turn": self.turn,
            "ask": self.ask,
            "kind": self.kind,
            "format": self.fmt,
            "nonce": self.nonce,
            **response,
        }
