"""OpenAI's response objects, whole and in chunks.

Sources: https://platform.openai.com/docs/api-reference/chat/object, .../chat/streaming and
.../completions/object.
"""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import zip_longest
from typing import Any

from apps.serve.answer.generation import Delta, Token
from apps.serve.engine.protocol import TokenLogprob
from apps.serve.model.served import ServedModel
from apps.serve.request.forced_call import ForcedCall
from apps.serve.request.prompts import Prompt
from apps.serve.request.tools import ToolParser


@dataclass(slots=True)
class Usage:
    """Token counts of one HTTP request: its prompts once, and all its choices."""

    prompt_tokens: int
    per_prompt: int = 1
    """choices of each prompt"""
    completion_tokens: int = 0
    cached_tokens: int = 0

    def add(self, delta: Delta) -> None:
        """Take a delta of any choice in."""
        self.completion_tokens += delta.num_generated
        if delta.index % self.per_prompt == 0:
            self.cached_tokens += delta.cached_tokens

    def body(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


@dataclass(frozen=True, slots=True)
class Head:
    """Fields that every object of one answer repeats."""

    id: str
    model: str
    created: int

    @classmethod
    def new(cls, prefix: str, model: str) -> "Head":
        return cls.of(f"{prefix}-{int(time.time()):08x}{secrets.token_hex(12)}", model)

    @classmethod
    def of(cls, stream: str, model: str) -> "Head":
        """Of a stream that began earlier, maybe at another gateway: its id tells when."""
        return cls(stream, model, int(stream.rpartition("-")[2][:8], 16))

    @property
    def seed(self) -> int:
        """For a request that names none: the same wherever its stream goes on."""
        digest = blake2b(self.id.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 1

    def body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


@dataclass(slots=True)
class ChatChoice:
    """One choice of a chat answer; the same for streams and whole answers."""

    model: ServedModel
    index: int
    wants_logprobs: bool
    parser: ToolParser | ForcedCall | None
    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None
    _has_role: bool = False

    def add(self, delta: Delta) -> list[dict[str, Any]]:
        """Take a delta in; returns the choices to send in a stream: role first, finish last."""
        text, pieces = delta.text, []
        if self.parser is not None:
            text, pieces = self.parser.push(delta.text, final=delta.finish_reason is not None)
        self.text += text
        self.tokens += delta.tokens
        chunks = [] if self._has_role else [self._chunk({"role": "assistant", "content": ""})]
        self._has_role = True
        if text or (self.wants_logprobs and delta.tokens):
            chunks.append(self._chunk({"content": text}, self._logprobs(delta.tokens)))
        for piece in pieces:
            self._keep(piece)
            chunks.append(self._chunk({"tool_calls": [piece]}))
        if delta.finish_reason is not None:
            done_by_call = self.tool_calls and delta.finish_reason == "stop"
            self.finish_reason = "tool_calls" if done_by_call else delta.finish_reason
            chunks.append({**self._chunk({}), "finish_reason": self.finish_reason})
        return chunks

    def _keep(self, piece: dict[str, Any]) -> None:
        """Join the pieces of a call."""
        if "id" in piece:
            function = dict(piece["function"])
            self.tool_calls.append({"id": piece["id"], "type": "function", "function": function})
        else:
            function = self.tool_calls[piece["index"]]["function"]
            function["arguments"] += piece["function"]["arguments"]

    def body(self) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": self.text or (None if self.tool_calls else ""),
            "refusal": None,
        }
        if self.tool_calls:
            message["tool_calls"] = self.tool_calls
        return {
            "index": self.index,
            "message": message,
            "logprobs": self._logprobs(self.tokens),
            "finish_reason": self.finish_reason,
        }

    def _chunk(
        self, delta: dict[str, Any], logprobs: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return {"index": self.index, "delta": delta, "logprobs": logprobs, "finish_reason": None}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self.wants_logprobs:
            return None
        return {"content": [self._token(token) for token in tokens], "refusal": None}

    def _token(self, token: Token) -> dict[str, Any]:
        assert token.logprob is not None  # asked for, so every token has one
        top = [self._scored(i, p) for i, p in token.logprob.top]
        return {**self._scored(token.id, token.logprob.logprob), "top_logprobs": top}

    def _scored(self, token_id: int, logprob: float) -> dict[str, Any]:
        raw = self.model.tokens.token_bytes(token_id)
        text = raw.decode("utf-8", errors="replace")
        return {"token": text, "logprob": logprob, "bytes": list(raw)}


@dataclass(slots=True)
class TextChoice:
    """One choice of a completion; the same for streams and whole answers."""

    model: ServedModel
    index: int
    wants_logprobs: bool
    echo: Prompt | None = None
    """The prompt, when it is sent back before its completion."""
    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    prompt_logprobs: Sequence[TokenLogprob] = ()
    """Of all prompt tokens but the first, where the engine can tell."""
    finish_reason: str | None = None
    _has_begun: bool = False

    def add(self, delta: Delta) -> list[dict[str, Any]]:
        """Take a delta in; returns the choices to send in a stream."""
        self.text += delta.text
        self.tokens += delta.tokens
        self.prompt_logprobs = self.prompt_logprobs or delta.prompt_logprobs
        self.finish_reason = delta.finish_reason
        if not delta.text and not delta.tokens and delta.finish_reason is None:
            return []
        return [self._chunk(delta.text, delta.tokens)]

    def body(self) -> dict[str, Any]:
        self._has_begun = False
        return self._chunk(self.text, self.tokens)

    @property
    def mean_logprob(self) -> float:
        """By which best_of ranks; an empty answer comes last."""
        values = [token.logprob.logprob for token in self.tokens if token.logprob is not None]
        return sum(values) / len(values) if values else float("-inf")

    def _chunk(self, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
        echo, self._has_begun = None if self._has_begun else self.echo, True
        return {
            "index": self.index,
            "text": text if echo is None else echo.text + text,
            "logprobs": self._logprobs(echo, tokens) if self.wants_logprobs else None,
            "finish_reason": self.finish_reason,
        }

    def _logprobs(self, echo: Prompt | None, tokens: Sequence[Token]) -> dict[str, Any]:
        """The first token of an echoed prompt has null: nothing precedes it."""
        known = [None, *self.prompt_logprobs]
        given = [Token(*pair) for pair in zip_longest(echo.ids, known)] if echo is not None else []
        shown = [*given, *tokens]
        offsets = self.model.tokens.starts(echo.ids, echo.text) if echo is not None else []
        begin = len(self.echo.text) if self.echo is not None else 0
        offsets += [begin + token.start for token in tokens]
        return {
            "tokens": [self.model.tokens.token_name(token.id) for token in shown],
            "token_logprobs": [t.logprob.logprob if t.logprob else None for t in shown],
            "top_logprobs": [
                {self.model.tokens.token_name(i): value for i, value in t.logprob.top}
                if t.logprob
                else None
                for t in shown
            ],
            "text_offset": offsets,
        }
