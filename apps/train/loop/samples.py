"""Answers to fixed prompts while a model is trained, so that a person sees what the loss means.

All prompts lie side by side in one row, each in a place of its own with room for its answer, as
conversations lie in a packed row. Attention is causal, so what stands in the room is not seen:

    <s>USER: a ASSISTANT: . . . .<s>USER: b c ASSISTANT: . . . .
                         ^                              ^         tokens are read off here first

One forward pass by all ranks gives every prompt its next token; rank 0's choice counts. There is no
cache of keys and values: 64 tokens take 64 forward passes over one row, about as long as 20 steps
over as many tokens. The record of a step says how long it took (`sample_s`).
"""

import numpy as np
import torch
import torch.distributed as dist

from apps.common.errors import ConfigError
from apps.common.packs import PackInfo
from apps.common.text.conversation import Message
from apps.common.text.tokenizer import Tokenizer
from apps.train.batches.micro_batch import MicroBatch
from apps.train.config import MetricsConfig
from apps.train.loop.record import Sample
from apps.train.model.attention import boundaries
from apps.train.parallel.strategy import Strategy


class Sampler:
    """Greedy answers of the model as it stands."""

    def __init__(self, config: MetricsConfig, pack: PackInfo, tokenizer: Tokenizer) -> None:
        """Raises ConfigError where a prompt and its answer are longer than the rows."""
        self._backend = tokenizer.backend
        self._stops = set(pack.template.stop_token_ids(tokenizer.backend))
        self._prompts, self._num_new = config.sample_prompts, config.sample_tokens
        self._ids = [self._encoded(pack, prompt) for prompt in self._prompts]
        for prompt, ids in zip(self._prompts, self._ids, strict=True):
            if len(ids) + self._num_new > pack.max_length:
                raise ConfigError(
                    f"The sample prompt {prompt[:40]!r} has {len(ids)} tokens; with "
                    f"metrics.sample_tokens {self._num_new} that is more than the rows' "
                    f"{pack.max_length}. Give a shorter prompt, or fewer tokens."
                )

    def _encoded(self, pack: PackInfo, prompt: str) -> list[int]:
        text = pack.template.render([Message("user", prompt)], add_generation_prompt=True).text
        return self._backend.encode(text, add_special_tokens=False).ids

    def answers(self, strategy: Strategy) -> list[Sample]:
        """A collective: every rank calls it, and gets the same answers."""
        sizes = [len(ids) + self._num_new for ids in self._ids]
        starts = np.cumsum([0, *sizes[:-1]])
        edges = boundaries([sizes], sum(sizes), strategy.device, with_mask=strategy.needs_mask)
        row = torch.zeros(1, sum(sizes), dtype=torch.int64, device=strategy.device)
        for start, ids in zip(starts, self._ids, strict=True):
            row[0, start : start + len(ids)] = torch.tensor(ids)
        lasts = [int(start) + len(ids) - 1 for start, ids in zip(starts, self._ids, strict=True)]
        places = torch.tensor(lasts, device=strategy.device)
        new: list[list[int]] = []
        has_ended = torch.zeros(len(places), dtype=torch.bool)
        while len(new) < self._num_new and not has_ended.all():
            batch = MicroBatch(row, row, edges.position_ids_BT, edges.packing, 0, 0)
            tokens = strategy.next_tokens(batch, places)
            dist.broadcast(tokens, src=0)
            places = places + 1
            row[0, places] = tokens
            new.append(tokens.tolist())
            has_ended |= torch.tensor([token in self._stops for token in new[-1]])
        told = zip(self._prompts, zip(*new, strict=True), strict=True)
        return [Sample(prompt=prompt, answer=self._text(tokens)) for prompt, tokens in told]

    def _text(self, tokens: tuple[int, ...]) -> str:
        ends = [place for place, token in enumerate(tokens) if token in self._stops]
        return self._backend.decode(list(tokens[: min(ends, default=len(tokens))])).strip()
