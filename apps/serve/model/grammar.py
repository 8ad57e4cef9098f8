"""Structured output: a JSON schema becomes a mask over the vocabulary, through llguidance.

Everything is bounded: the schema's size (protocol.MAX_GRAMMAR_BYTES), and the work llguidance may
do to compile it and per token (LLParserLimits). A schema it cannot follow is refused with its
reason, never followed in part.
"""

import threading
from collections import OrderedDict
from functools import cached_property
from typing import TYPE_CHECKING

import tokenizers
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from apps.common.errors import InputError
from apps.serve.engine.protocol import Grammar, RequestError, TokenMask

if TYPE_CHECKING:  # it has no such name at run time
    from llguidance._lib import JsonCompileOptions

GRAMMAR_REFUSED = "the JSON schema (of response_format or tools) cannot be followed"
MAX_CACHED = 64
MAX_WHITESPACE = 8
"""Spaces and line breaks in a row: without a bound, a small model may emit nothing else."""
_DEFAULTS: "JsonCompileOptions" = {"whitespace_pattern": rf"[ \n\r\t]{{0,{MAX_WHITESPACE}}}"}


class GrammarCompiler:
    """A MaskFactory for one tokenizer. Thread-safe; compiled grammars are kept."""

    def __init__(
        self, backend: tokenizers.Tokenizer, vocab_size: int, eos_token_ids: tuple[int, ...]
    ) -> None:
        if not eos_token_ids:
            raise InputError(
                "structured output needs an end-of-text token; add eos_token_id to the model "
                "folder's generation_config.json"
            )
        self._backend = backend
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._lock = threading.Lock()
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()

    def __call__(self, grammar: Grammar) -> TokenMask:
        with self._lock:
            matcher = self._compiled.get(grammar)
            if matcher is None:
                matcher = self._compiled[grammar] = self._compile(grammar)
            self._compiled.move_to_end(grammar)
            if len(self._compiled) > MAX_CACHED:
                self._compiled.popitem(last=False)
        return GrammarMask(matcher.deep_copy())

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        """Takes about a second for a large vocabulary, so it waits for the first use."""
        return LLTokenizer(
            self._backend.to_str(), n_vocab=self._vocab_size, eos_token=list(self._eos_token_ids)
        )

    def _compile(self, grammar: Grammar) -> LLMatcher:
        schema = '{"type": "object"}' if grammar.kind == "json_object" else grammar.text
        try:
            text = LLMatcher.grammar_from_json_schema(schema, defaults=_DEFAULTS)
        except ValueError as error:
            raise _refused(str(error)) from error
        matcher = LLMatcher(self._tokenizer, text, log_level=0, limits=LLParserLimits())
        probe = matcher.deep_copy()
        probe.compute_bitmask()  # what is too much work mostly shows at the first token
        if probe.is_error():
            raise _refused(probe.get_error())
        return matcher


class GrammarMask:
    """Where one answer stands in its grammar; see protocol.TokenMask."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def bitmask(self) -> bytes:
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise _refused(self._matcher.get_error())
        return mask

    def accept(self, token_id: int) -> None:
        if not self._matcher.consume_token(token_id):
            raise _refused(self._matcher.get_error())


def _refused(reason: str) -> RequestError:
    lines = [line.strip() for line in reason.splitlines() if line.strip()] or ["no reason given"]
    told = lines[0]
    if told.endswith(":") and lines[-1].startswith("error: "):  # a regex, and where in it, between
        told = f"{told} {lines[-1].removeprefix('error: ')}"
    return RequestError(
        f"{GRAMMAR_REFUSED}: {told[:300].rstrip('.')}; simplify it", "response_format"
    )
