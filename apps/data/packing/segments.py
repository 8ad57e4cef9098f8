"""Cut conversations into segments of at most `max_length` tokens, between rounds, losing none.

A round is what leads up to an assistant message, and that message. Every segment opens with the
conversation's own system message (or the template's), so its ids are those of
`apply_chat_template` on the messages that it holds. What is counted are the tokens of the real
template. Only a round that alone exceeds `max_length` is shortened or dropped, and counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import tokenizers

from apps.common.text.conversation import ChatTemplate, Encoded, Message, ToolSchemas
from apps.data.read.record.tool_calls import answers_around_tools, is_of_tools

OverLong = Literal["truncate_answer", "drop"]
_FIRST_CHARS_PER_TOKEN = 4.0
_OVERSHOOT = 1.12
"""more characters are tried than should fit, so that a row is seldom left short"""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive rounds of one conversation as tokens."""

    ids: npt.NDArray[np.int32]
    """[T]"""
    mask: npt.NDArray[np.bool_]
    """[T], true where the loss is taken"""
    messages: tuple[Message, ...]
    is_truncated: bool = False


@dataclass(slots=True)
class Cut:
    """All segments of one conversation, and what became of its rounds."""

    num_rounds: int
    segments: list[Segment] = field(default_factory=list[Segment])
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    """rule -> rounds"""
    num_tool_turns: int = 0
    """messages of tools, and calls of them, that the template cannot show"""

    @property
    def num_truncated(self) -> int:
        return sum(segment.is_truncated for segment in self.segments)

    def drop(self, rule: str, num_rounds: int = 1) -> None:
        self.dropped[rule] = self.dropped.get(rule, 0) + num_rounds


class Cutter:
    """Cuts batches of conversations with one template and tokenizer."""

    def __init__(
        self,
        template: ChatTemplate,
        backend: tokenizers.Tokenizer,
        max_length: int,
        over_long: OverLong = "truncate_answer",
    ) -> None:
        self._template = template
        self._backend = backend
        self._max_length = max_length
        self._over_long = over_long
        self._shows_tools = template.shows_tools()
        self._chars_per_token = _FIRST_CHARS_PER_TOKEN  # of what came before: speed, not results

    def cut(
        self,
        conversations: Sequence[Sequence[Message]],
        tools: Sequence[ToolSchemas | None] | None = None,
    ) -> list[Cut]:
        """One Cut per conversation; `tools` are the functions that each could call.

        Long conversations go through several waves: each wave encodes, for every unfinished
        conversation, somewhat more rounds than should fit, and keeps those that do.
        """
        guess = self._chars_per_token * _OVERSHOOT
        offered = tools if tools and self._shows_tools else [None] * len(conversations)
        tasks = [
            self._task(messages, own, guess)
            for messages, own in zip(conversations, offered, strict=True)
        ]
        pending = [task for task in tasks if task.rounds]
        while pending:
            windows = [task.window(self._max_length) for task in pending]
            own_tools = [task.tools for task in pending]
            encoded = self._template.encode_batch(self._backend, windows, own_tools)
            self._learn(encoded)
            for task, window in zip(pending, encoded, strict=True):
                self._advance(task, window)
            pending = [task for task in pending if task.start < len(task.rounds)]
        return [task.result for task in tasks]

    def _task(
        self, messages: Sequence[Message], tools: ToolSchemas | None, guess: float
    ) -> "_Task":
        """What the template cannot show is left out, and never learned as an empty answer."""
        shown = messages if self._shows_tools else without_tool_turns(messages)
        task = _Task(shown, tools, guess)
        if not self._shows_tools:
            task.result.num_tool_turns = sum(map(is_of_tools, messages))
        return task

    def _learn(self, encoded: Sequence[Encoded]) -> None:
        num_tokens = sum(len(one.ids) for one in encoded)
        if num_tokens:
            self._chars_per_token = sum(len(one.text) for one in encoded) / num_tokens

    def _advance(self, task: "_Task", encoded: Encoded) -> None:
        if encoded.fault is not None:
            task.give_up(encoded.fault)
        elif len(encoded.ids) <= self._max_length:
            if task.stop == len(task.rounds):
                task.keep(task.stop, encoded.ids, encoded.mask)
            else:
                task.chars_per_token *= 1.5  # too few rounds were tried; the next wave takes more
        else:
            task.chars_per_token = _OVERSHOOT * len(encoded.text) / len(encoded.ids)
            self._keep_what_fits(task, encoded)

    def _keep_what_fits(self, task: "_Task", encoded: Encoded) -> None:
        """Of a window that is too long, keep the most rounds that fit."""
        fits, too_many = task.start, task.stop
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            if self._num_tokens(task, middle, encoded) <= self._max_length:
                fits = middle
            else:
                too_many = middle
        if fits == task.start:
            self._shorten_round(task, encoded)
            return
        num_tokens = encoded.num_tokens_of(self._text(task, fits))
        if num_tokens is None:
            encoded = self._template.encode_batch(
                self._backend, [task.messages(fits)], [task.tools]
            )[0]
            num_tokens = len(encoded.ids)
        if encoded.fault is not None:
            task.give_up(encoded.fault)
        else:
            task.keep(fits, encoded.ids[:num_tokens], encoded.mask[:num_tokens])

    def _num_tokens(self, task: "_Task", stop: int, encoded: Encoded) -> int:
        """Tokens of the rounds before `stop`, read off the encoding of more rounds if it can be."""
        num_tokens = encoded.num_tokens_of(self._text(task, stop))
        if num_tokens is None:
            alone = self._template.encode_batch(self._backend, [task.messages(stop)], [task.tools])
            num_tokens = len(alone[0].ids)
        return num_tokens

    def _text(self, task: "_Task", stop: int) -> str:
        return self._template.render(task.messages(stop), tools=task.tools).text

    def _shorten_round(self, task: "_Task", encoded: Encoded) -> None:
        """One round alone is too long: keep the beginning of its answer, without a stop token."""
        if self._over_long == "drop":
            task.skip("over_long_round")
        elif not encoded.mask[: self._max_length].any():
            task.skip("over_long_prompt")
        else:
            ids, mask = encoded.ids[: self._max_length], encoded.mask[: self._max_length]
            task.keep(task.start + 1, ids, mask, is_truncated=True)


class _Task:
    """A conversation on its way: rounds before `start` are done, up to `stop` are being tried."""

    def __init__(
        self, messages: Sequence[Message], tools: ToolSchemas | None, chars_per_token: float
    ) -> None:
        self.tools = tools
        self.head, self.rounds, num_unanswered = split_rounds(messages)
        self.result = Cut(len(self.rounds) + (num_unanswered > 0))
        if num_unanswered:
            self.result.drop("unanswered")
        self.start = self.stop = 0
        self.chars_per_token = chars_per_token

    def window(self, max_length: int) -> tuple[Message, ...]:
        """The next rounds to try: at least one, about as many as could fit."""
        budget = max_length * self.chars_per_token
        self.stop = self.start
        while self.stop < len(self.rounds) and (budget > 0 or self.stop == self.start):
            budget -= sum(len(message.content) for message in self.rounds[self.stop])
            self.stop += 1
        return self.messages(self.stop)

    def messages(self, stop: int) -> tuple[Message, ...]:
        rounds = self.rounds[self.start : stop]
        return (*self.head, *(message for one in rounds for message in one))

    def keep(
        self,
        stop: int,
        ids: npt.NDArray[np.int32],
        mask: npt.NDArray[np.bool_],
        is_truncated: bool = False,
    ) -> None:
        if mask.any():
            self.result.segments.append(Segment(ids, mask, self.messages(stop), is_truncated))
        else:
            self.result.drop("not_learned", stop - self.start)
        self.start = stop

    def skip(self, rule: str) -> None:
        self.result.drop(rule)
        self.start += 1

    def give_up(self, rule: str) -> None:
        """A fault anywhere drops the whole conversation: its turns refer to each other."""
        num_left = self.result.num_rounds - sum(self.result.dropped.values())
        self.result.segments.clear()
        self.result.drop(rule, num_left)
        self.start = len(self.rounds)


def without_tool_turns(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Without what tools said and calls of them.

    What an assistant says beside a call stays, and is one answer with what it says after it.
    """
    groups = answers_around_tools(messages, lambda message: message.content)
    return tuple(map(_joined, groups))


def _joined(group: Sequence[Message]) -> Message:
    return replace(
        group[0],
        content="\n\n".join(message.content for message in group),
        is_learned=all(message.is_learned for message in group),
        tool_calls=None,
    )


def split_rounds(
    messages: Sequence[Message],
) -> tuple[tuple[Message, ...], list[tuple[Message, ...]], int]:
    """System messages in front, the rounds, and the number of messages after the last answer."""
    num_head = 0
    while num_head < len(messages) and messages[num_head].role == "system":
        num_head += 1
    rounds: list[tuple[Message, ...]] = []
    current: list[Message] = []
    for message in messages[num_head:]:
        current.append(message)
        if message.role == "assistant":
            rounds.append(tuple(current))
            current = []
    return tuple(messages[:num_head]), rounds, len(current)
