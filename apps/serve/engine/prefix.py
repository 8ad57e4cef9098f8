"""Prefix cache: keys and values of finished prompts, in blocks, shared by content.

A block is BLOCK consecutive tokens; its key is the digest of the block before it and its own
tokens, so equal prefixes share blocks and a match is a walk along the prompt. Blocks live in one
pool of their own and are copied into a request's slot. The least recently used block goes first.
"""

from collections import OrderedDict
from hashlib import blake2b

import numpy as np
import torch

from apps.serve.engine.llama import KVCache

BLOCK = 32


class PrefixCache:
    def __init__(self, cache: KVCache, num_blocks: int) -> None:
        layers, two, _, heads, _, head_dim = cache.data.shape
        self.cache = cache
        # Where block b's tokens lie is the second to last axis, as in the cache.
        self.pool = torch.empty(
            (num_blocks, layers, two, heads, BLOCK, head_dim), device=cache.data.device
        )
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
        if found:
            target = self.cache.data[:, :, slot, :, :num_tokens].unflatten(3, (-1, BLOCK))
            target.copy_(self.pool[torch.tensor(found)].permute(1, 2, 3, 0, 4, 5))
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
            start = index * BLOCK
            self.pool[block] = self.cache.data[:, :, slot, :, start : start + BLOCK]

    def _take(self) -> int | None:
        if self.free:
            return self.free.pop()
        return self.blocks.popitem(last=False)[1] if self.blocks else None

    def used_bytes(self) -> int:
        return len(self.blocks) * block_bytes(self.cache)


def block_bytes(cache: KVCache) -> int:
    layers, two, _, heads, _, head_dim = cache.data.shape
    return 4 * layers * two * heads * BLOCK * head_dim


def _keys(token_ids: list[int], salt: str) -> list[bytes]:
    key, keys = salt.encode(), []
    tokens = np.asarray(token_ids, dtype=np.int64)
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        key = blake2b(key + tokens[start : start + BLOCK].tobytes(), digest_size=16).digest()
        keys.append(key)
    return keys
