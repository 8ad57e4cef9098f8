"""Control tokens that a normalizer makes of other texts, such as `<|end|>` of `<|END|>`.

A special token flagged `normalized` is looked for in the normalized text, so that a search for its
own text misses what NFKC, Lowercase and their like turn into it. Here the text is encoded instead.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import tokenizers

_TRIES = 8
"""Rounds of adding spaces. A normalizer may take them out again; then the text is left out."""


@dataclass(frozen=True, slots=True)
class HiddenTokens:
    """What is needed to find them."""

    backend: tokenizers.Tokenizer
    ids: frozenset[int]
    """of all control tokens but the one that stands for unknown text"""

    @classmethod
    def of(cls, backend: tokenizers.Tokenizer) -> Self | None:
        """None for nearly all tokenizers: no control token is looked for in normalized text."""
        added = backend.get_added_tokens_decoder()
        special = {index: token for index, token in added.items() if token.special}
        if backend.normalizer is None or not any(t.normalized for t in special.values()):
            return None
        unknown: object = getattr(backend.model, "unk_token", None)
        texts = {index: token.content for index, token in special.items()}
        ids = (i for i, text in texts.items() if len(text) > 1 and text != unknown)
        return cls(backend, frozenset(ids))

    def broken(self, text: str) -> tuple[str, int]:
        """The text with a space after the first character of each, and how many there were.

        Where a space does not help, the characters are left out; so it always ends.
        """
        num_broken = num_tries = 0
        while spans := self._spans(text):
            num_tries += 1
            for start, end in reversed(spans):
                inside = text[start:end]
                if num_tries <= _TRIES and len(inside) > 1 and inside[1] != " ":
                    text = f"{text[: start + 1]} {text[start + 1 :]}"
                else:
                    text = text[:start] + text[end:]
            num_broken += len(spans)
        return text, num_broken

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of each in characters, none empty and none overlapping."""
        encoded = self.backend.encode(text, add_special_tokens=False)
        pairs: Iterable[tuple[int, tuple[int, int]]] = zip(
            encoded.ids, encoded.offsets, strict=True
        )
        spans: list[tuple[int, int]] = []
        for token_id, (start, end) in pairs:
            first = max(min(start, len(text) - 1), spans[-1][1] if spans else 0)
            if token_id in self.ids and first < len(text):
                spans.append((first, max(end, first + 1)))
        return spans
