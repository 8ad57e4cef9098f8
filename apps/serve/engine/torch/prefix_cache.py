"""Prefix cache: keys and values of finished prompts, in chunks, shared by content.

A chunk's key is the digest of the chunk before it and its own tokens, so equal prefixes share
chunks and a match is a walk along the prompt. They live in the spare chunks of the KV cache and are
copied into a request's slot. The least recently used one goes first.
"""

from collections import OrderedDict
from hashlib import blake2b

import numpy as np

from apps.serve.engine.llama.kv_cache import CHUNK, Cache


class PrefixCache:
    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.free = list(range(cache.first_spare, cache.num_chunks))
        self.chunks: OrderedDict[bytes, int] = OrderedDict()

    def load(self, slot: int, token_ids: list[int], salt: str) -> int:
        """Copy the longest known prefix into the slot; returns its tokens.

        At least one token is left over, because a request needs the logits of its last one.
        """
        found: list[int] = []
        for key in _keys(token_ids[: len(token_ids) - 1], salt):
            if key not in self.chunks:
                break
            self.chunks.move_to_end(key)
            found.append(self.chunks[key])
        for index, chunk in enumerate(found):
            self.cache.copy_chunk(chunk, self.cache.chunk_of(slot, index))
        return len(found) * CHUNK

    def store(self, slot: int, token_ids: list[int], salt: str) -> None:
        """Keep the slot's chunks for the first len(token_ids) tokens; all of them are computed."""
        for index, key in enumerate(_keys(token_ids, salt)):
            if key in self.chunks:
                self.chunks.move_to_end(key)
                continue
            chunk = self._take()
            if chunk is None:
                return
            self.chunks[key] = chunk
            self.cache.copy_chunk(self.cache.chunk_of(slot, index), chunk)

    def _take(self) -> int | None:
        if self.free:
            return self.free.pop()
        return self.chunks.popitem(last=False)[1] if self.chunks else None


def _keys(token_ids: list[int], salt: str) -> list[bytes]:
    key, keys = salt.encode(), []
    tokens = np.asarray(token_ids, dtype=np.int64)
    for start in range(0, len(tokens) - CHUNK + 1, CHUNK):
        key = blake2b(key + tokens[start : start + CHUNK].tobytes(), digest_size=16).digest()
        keys.append(key)
    return keys
