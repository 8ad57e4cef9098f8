"""Prefix cache: keys and values of finished prompts, in blocks, shared by content.

A block is BLOCK consecutive tokens; its key is the digest of the block before it and its own
tokens, so equal prefixes share blocks and a match is a walk along the prompt. Blocks live in one
pool of their own and are copied into a request's slot. The least recently used block goes first.
"""

from collections import OrderedDict
from hashlib import blake2b

import numpy as np

from apps.serve.engine.llama import KVCache

BLOCK = 32
"""Divides llama.CHUNK."""


class PrefixCache:
    def __init__(self, cache: KVCache, num_blocks: int) -> None:
        self.cache = cache
        self.pool = cache.data.new_empty((num_blocks, *cache.tokens(0, 0, BLOCK).shape))
        self.free = list(range(num_blocks))
        self.blocks: OrderedDict[bytes, int] = OrderedDict()
        self.num_hit_tokens = 0
        self.num_asked_tokens = 0

    def load(self, slot: int, token_ids: list[int], salt: str) -> int:
        """Copy the longest known prefix into the slot; returns its tokens.

        At least one token is left over, because a request needs the logits of its last one.
        """
        found: list[int] = []
        for key in _keys(token_ids[: len(token_ids) - 1], salt):
            if key not in self.blocks:
                break
            self.blocks.move_to_end(key)
            found.append(self.blocks[key])
        num_tokens = len(found) * BLOCK
        self.num_asked_tokens += len(token_ids)
        self.num_hit_tokens += num_tokens
        for index, block in enumerate(found):
            self.cache.tokens(slot, index * BLOCK, BLOCK).copy_(self.pool[block])
        return num_tokens

    def store(self, slot: int, token_ids: list[int], salt: str) -> None:
        """Keep the slot's blocks for the first len(token_ids) tokens; all of them are computed."""
        for index, key in enumerate(_keys(token_ids, salt)):
            if key in self.blocks:
                self.blocks.move_to_end(key)
                continue
            block = self._take()
            if block is None:
                return
            self.blocks[key] = block
            self.pool[block] = self.cache.tokens(slot, index * BLOCK, BLOCK)

    def _take(self) -> int | None:
        if self.free:
            return self.free.pop()
        return self.blocks.popitem(last=False)[1] if self.blocks else None


def _keys(token_ids: list[int], salt: str) -> list[bytes]:
    key, keys = salt.encode(), []
    tokens = np.asarray(token_ids, dtype=np.int64)
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        key = blake2b(key + tokens[start : start + BLOCK].tobytes(), digest_size=16).digest()
        keys.append(key)
    return keys
