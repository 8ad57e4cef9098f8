"""Continuous batching, event by event: when each request gets its first and its last token.

A pipeline has as many lanes as stages, a group without one has a single lane. In a round a lane
runs one step of each model that it has sequences of; a step takes every sequence one token further,
and a piece of the oldest waiting prompt. Rounds without prompts are taken many at once: the
sequence that ends first says how many.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apps.serve.place.arrivals import Arrivals
from apps.serve.place.placement import Cluster, Group, Model, Placement, kv_bytes
from apps.serve.place.speed import Speed


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineLimits:
    """Of one lane."""

    max_running: int = 256
    prompt_piece_tokens: int = 1024
    """Most prompt tokens in a step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slo:
    """What a request must get, in seconds."""

    ttft_s: float
    """until the first token"""
    tpot_s: float
    """between two tokens, on average"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """Of every request, seconds after it came; infinite where no group holds its model."""

    first_s: NDArray[np.float64]
    last_s: NDArray[np.float64]
    output_tokens: NDArray[np.int64]

    @property
    def tpot_s(self) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            between = (self.last_s - self.first_s) / np.maximum(self.output_tokens - 1, 1)
        return np.where(np.isfinite(self.last_s), between, np.inf)

    def attains(self, slo: Slo) -> NDArray[np.bool_]:
        return (self.first_s <= slo.ttft_s) & (self.tpot_s <= slo.tpot_s)


class _Lane:
    """One batch at a time. `rounds` counts tokens: a sequence that needs n more ends n later."""

    def __init__(self, speeds: dict[int, Speed], kv_bytes_per_token: dict[int, float], kv: float,
                 limits: EngineLimits) -> None:  # fmt: skip
        self.speeds, self.kv_per_token, self.kv_free, self.limits = (
            speeds, kv_bytes_per_token, kv, limits,
        )  # fmt: skip
        self.now_s = 0.0
        self.pause_s = np.inf
        """Without work, since the last step."""
        self.rounds = 0
        self.holding = 0
        self.waiting: deque[tuple[int, int, int, int]] = deque()
        """(request, model, prompt, output)"""
        self.prompt_left = 0
        self.taking: tuple[int, int, int, int] | None = None
        self.ends: list[tuple[int, int, int, int, int]] = []
        """Heap of (round, request, model, tokens held, KV bytes held)."""
        self.running = dict.fromkeys(speeds, 0)
        self.context = dict.fromkeys(speeds, 0)

    @property
    def load(self) -> int:
        return len(self.waiting) + len(self.ends) + (self.taking is not None)

    def _admit(self) -> None:
        if self.taking is not None or not self.waiting or len(self.ends) >= self.limits.max_running:
            return
        _, model, prompt, output = self.waiting[0]
        held = int((prompt + output) * self.kv_per_token[model])
        if held > self.kv_free and self.holding:
            return
        self.taking = self.waiting.popleft()
        self.prompt_left = prompt
        self.kv_free -= held
        self.holding += 1

    def advance(
        self, until_s: float, first_s: NDArray[np.float64], last_s: NDArray[np.float64]
    ) -> None:
        """Rounds that begin before `until_s`."""
        while self.now_s < until_s:
            self._admit()
            if self.taking is not None:
                self._take_prompt(first_s, last_s)
            elif self.ends:
                self._run(until_s, last_s)
            else:
                self.pause_s += until_s - self.now_s
                self.now_s = until_s
                return

    def _take_prompt(self, first_s: NDArray[np.float64], last_s: NDArray[np.float64]) -> None:
        """One round with prompt pieces up to the limit, of one model."""
        assert self.taking is not None
        room, model, begun = self.limits.prompt_piece_tokens, self.taking[1], []
        taken = attended = 0
        while self.taking is not None and self.taking[1] == model and room:
            piece = min(self.prompt_left, room)
            start = self.taking[2] - self.prompt_left
            attended += piece * start + piece * (piece + 1) // 2
            self.prompt_left -= piece
            room -= piece
            taken += piece
            if self.prompt_left:
                break
            begun.append(self.taking)
            self.taking = None
            if len(self.ends) + len(begun) < self.limits.max_running:
                self._admit()
        self._pass(1, model, taken, attended)
        for request, its_model, prompt, output in begun:
            held = int((prompt + output) * self.kv_per_token[its_model])
            heapq.heappush(
                self.ends, (self.rounds + output - 1, request, its_model, prompt + output, held)
            )
            self.running[its_model] += 1
            self.context[its_model] += prompt + 1
        self._finish(last_s)
        for request, *_ in begun:
            first_s[request] = self.now_s

    def _run(self, until_s: float, last_s: NDArray[np.float64]) -> None:
        """Rounds until one sequence ends, or the time is over."""
        rounds = self.ends[0][0] - self.rounds
        left_s = until_s - self.now_s
        if left_s < np.inf:
            rounds = max(min(rounds, int(left_s / self._rounds_s(1)) + 1), 1)
            while rounds > 1 and self._rounds_s(rounds - 1) >= left_s:
                rounds -= 1  # contexts grow, so later rounds take longer than the first
        self._pass(rounds)
        self._finish(last_s)

    def _rounds_s(self, rounds: int) -> float:
        return sum(
            self.speeds[model].seconds(count, self.context[model], 0, rounds=rounds)
            for model, count in self.running.items()
            if count
        )

    def _pass(
        self, rounds: int, prompt_model: int = -1, prompt_tokens: int = 0, attended: int = 0
    ) -> None:
        """Some rounds, or one with a piece of prompts whose tokens attend to so many."""
        pause_s, self.pause_s = self.pause_s, 0.0
        for model, count in self.running.items():
            has_piece = model == prompt_model
            if not count and not has_piece:
                continue
            speed, piece = self.speeds[model], (prompt_tokens, attended) if has_piece else (0, 0)
            self.now_s += speed.seconds(count, self.context[model], *piece, rounds)
            if pause_s > 0:
                self.now_s += speed.cold_s(pause_s)
            self.context[model] += rounds * count
        self.rounds += rounds

    def _release(self, held: int) -> None:
        self.kv_free += held
        self.holding -= 1

    def _finish(self, last_s: NDArray[np.float64]) -> None:
        """The tokens of a step are told when all that has ended in it is put away."""
        ended = list[int]()
        while self.ends and self.ends[0][0] <= self.rounds:
            _, request, model, tokens, held = heapq.heappop(self.ends)
            self.now_s += self.speeds[model].ended_s * tokens
            ended.append(request)
            self.running[model] -= 1
            self.context[model] -= tokens
            self._release(held)
        for request in ended:
            last_s[request] = self.now_s


def simulate(
    groups: Placement,
    models: Sequence[Model],
    cluster: Cluster,
    arrivals: Arrivals,
    limits: EngineLimits | None = None,
) -> Served:
    """A request goes to the least loaded lane of those that hold its model."""
    limits = limits or EngineLimits()
    lanes = [lane for group in groups for lane in _lanes(group, models, cluster, limits)]
    by_model: list[list[_Lane]] = [
        [lane for lane in lanes if index in lane.speeds] for index in range(len(models))
    ]
    first_s = np.full(arrivals.num_requests, np.inf)
    last_s = np.full(arrivals.num_requests, np.inf)
    rows = zip(
        arrivals.at_s.tolist(),
        arrivals.model.tolist(),
        arrivals.prompt_tokens.tolist(),
        arrivals.output_tokens.tolist(),
        strict=True,
    )
    for request, (at_s, model, prompt, output) in enumerate(rows):
        holders = by_model[model]
        if not holders:
            continue
        for lane in holders:
            if lane.now_s < at_s:
                lane.advance(at_s, first_s, last_s)
        chosen = min(holders, key=_load)
        chosen.waiting.append((request, model, prompt, output))
    for lane in lanes:
        lane.advance(np.inf, first_s, last_s)
    return Served(
        first_s=first_s - arrivals.at_s,
        last_s=last_s - arrivals.at_s,
        output_tokens=arrivals.output_tokens,
    )


def _load(lane: _Lane) -> int:
    return lane.load


def _lanes(
    group: Group, models: Sequence[Model], cluster: Cluster, limits: EngineLimits
) -> list[_Lane]:
    """Each has its share of the memory for conversations."""
    share = kv_bytes(group, models, cluster) / group.pipeline
    speeds = {index: models[index].shape.speeds[group.tensor] for index in group.models}
    per_token = {index: models[index].shape.kv_bytes_per_token for index in group.models}
    return [_Lane(speeds, per_token, share, limits) for _ in range(group.pipeline)]
