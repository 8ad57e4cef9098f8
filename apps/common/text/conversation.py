"""Conversations, and the one truth about how they become text, token ids and a loss mask.

    template = load_template("vicuna-v1.1", tokenizer)         # from templates.py
    check_template(template, tokenizer)                        # once, from template_check.py
    encoded = template.encode(tokenizer.backend, messages)     # training: encoded.ids, .mask
    prompt = template.render(messages, add_generation_prompt=True).text    # serving

The text is rendered once and tokenized once. What the assistant said, with its end-of-turn token,
is a span of characters. The template's generation markers give the spans; where it has none, it is
rendered with and without each answer (derived_mask.py). Nothing is searched for in the text, so
role words or control-token texts inside a message never move the mask. Ids equal
`AutoTokenizer.from_pretrained(folder).apply_chat_template(messages, tokenize=True)`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import tokenizers

from apps.common.errors import TemplateError
from apps.common.text import jinja
from apps.common.text.derived_mask import derived_spans
from apps.common.text.token_edges import TokenEdges, speller

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn."""

    role: Role
    content: str
    is_learned: bool = True
    """Whether an assistant's turn is in the loss; it is in the context anyway."""
    tool_calls: str | None = None
    """JSON of an assistant's calls."""
    tool_call_id: str | None = None
    name: str | None = None
    """Of a tool's turn."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns that belong together; `id` is the source's digest and ordinal."""

    id: str
    messages: tuple[Message, ...]


Fields = Mapping[str, object]
"""A message as the template sees it: role, content and what else was sent."""
Messages = Sequence[Message | Fields]
ToolSchemas = Sequence[Mapping[str, object]]
"""JSON schemas of functions, for templates that show them."""


class Rendered(NamedTuple):
    """A conversation as text."""

    text: str
    spans: tuple[tuple[int, int], ...]
    """Character ranges [start, end) that the assistant says, end-of-turn token included."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation as tokens."""

    ids: npt.NDArray[np.int32]
    """[T]"""
    mask: npt.NDArray[np.bool_]
    """[T], true where the loss is taken: on the assistant's tokens."""
    text: str
    """What the template rendered."""
    fault: str | None = None
    """Why this conversation cannot be trained on, as a rule name for a ledger; None when it can.

    `template_refuses`: the template raised; text and ids are empty.
    `content_changed`: the template left out or rewrote an assistant message.
    `seam_token`: a token holds both assistant text and text around it, so that the prompt at
    serving time would not be a prefix of these ids.
    """
    edges: TokenEdges | tokenizers.Encoding | None = field(default=None, repr=False, compare=False)

    def num_tokens_of(self, prefix: str) -> int | None:
        """Tokens of a prefix of the text; None when it is none, or a token straddles its end."""
        if self.edges is None or not self.text.startswith(prefix):
            return None
        num_tokens, is_seam = _token_edge(self.edges, len(self.ids), len(prefix))
        return None if is_seam else num_tokens


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A chat template with everything that depends on it: text, mask, stop tokens."""

    name: str
    """`vicuna-v1.1`, `llama-2`, `llama-3`, `chatml`, or `own` for a folder's template."""
    source: str
    """Jinja, with generation markers around what the assistant says."""
    special_tokens: Mapping[str, str] = field(default_factory=dict[str, str])
    """`bos_token`, `eos_token`, ... -> text: variables of the template."""
    extra_stop_tokens: tuple[str, ...] = ()
    """End-of-turn tokens beside `eos_token`."""
    default_system: str | None = None
    """What the template says when a conversation has no system message."""

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts of the tokens that end an assistant turn: serving stops at any of them.

        They are control tokens: generation stops at their ids (`stop_token_ids`); an engine that
        only sees text cuts at these strings.
        """
        eos = self.special_tokens.get("eos_token")
        texts = self.extra_stop_tokens if eos is None else (*self.extra_stop_tokens, eos)
        return tuple(dict.fromkeys(texts))

    @property
    def has_generation_markers(self) -> bool:
        return "generation" in self.source and "endgeneration" in self.source

    def stop_token_ids(self, backend: tokenizers.Tokenizer) -> tuple[int, ...]:
        """Ids of `stop_strings`, for `eos_token_id` of generation_config.json."""
        ids = (backend.token_to_id(text) for text in self.stop_strings)
        return tuple(i for i in ids if i is not None)

    def with_special_tokens(self, special_tokens: Mapping[str, str]) -> "ChatTemplate":
        return replace(self, special_tokens=dict(special_tokens))

    def to_dict(self) -> dict[str, object]:
        """As pack.json and lineage.json keep it; `from_dict` is the inverse."""
        return {
            "name": self.name,
            "source": self.source,
            "special_tokens": dict(self.special_tokens),
            "extra_stop_tokens": list(self.extra_stop_tokens),
            "default_system": self.default_system,
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, object]) -> "ChatTemplate":
        return cls(
            name=cast(str, saved["name"]),
            source=cast(str, saved["source"]),
            special_tokens=cast(dict[str, str], saved["special_tokens"]),
            extra_stop_tokens=tuple(cast(list[str], saved["extra_stop_tokens"])),
            default_system=cast(str | None, saved["default_system"]),
        )

    def render(
        self,
        messages: Messages,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tools: ToolSchemas | None = None,
    ) -> Rendered:
        """Text and assistant spans.

        `add_generation_prompt` ends with what precedes an assistant turn. `continue_final_message`
        leaves the last message open, for the model to go on with. `tools` are JSON schemas, for
        templates that show them. Raises TemplateError when the template refuses the messages.
        """
        if not messages:
            raise TemplateError("A conversation without messages; expected at least one.")
        if continue_final_message and add_generation_prompt:
            raise TemplateError(
                "continue_final_message and add_generation_prompt exclude each other: "
                "the first goes on with the last message, the second begins a new one."
            )
        plain = [_as_mapping(message) for message in messages]
        if continue_final_message:
            return Rendered(self._render_open(plain, tools), ())
        return Rendered(*self._render(plain, add_generation_prompt, tools))

    def encode(self, backend: tokenizers.Tokenizer, messages: Messages) -> Encoded:
        """Ids and loss mask of one conversation; raises TemplateError where it has a fault."""
        encoded = self.encode_batch(backend, [messages])[0]
        if encoded.fault is not None:
            raise TemplateError(f"This conversation cannot be trained on: {_FAULTS[encoded.fault]}")
        return encoded

    def encode_batch(
        self,
        backend: tokenizers.Tokenizer,
        conversations: Sequence[Messages],
        tools: Sequence[ToolSchemas | None] | None = None,
    ) -> list[Encoded]:
        """Ids and loss mask of many conversations; faults are reported, not raised.

        `tools` has the functions of each conversation.
        """
        offered = tools or [None] * len(conversations)
        rendered = [
            self._try_render(messages, own)
            for messages, own in zip(conversations, offered, strict=True)
        ]
        texts = [r.text if r is not None else "" for r, _ in rendered]
        encoded = speller(backend).encode_batch(texts)
        return [
            _REFUSED if r is None else _masked(r, _learned(messages), ids, edges, fault)
            for messages, (r, fault), (ids, edges) in zip(
                conversations, rendered, encoded, strict=True
            )
        ]

    def shows_tools(self) -> bool:
        """Whether the template shows the calls of an assistant and what the tools answered."""
        try:
            text = self.render(_TOOL_PROBE).text
        except TemplateError:
            return False
        return all(word in text for word in ("look_up", "oranges", "17 crates"))

    def _try_render(
        self, messages: Messages, tools: ToolSchemas | None
    ) -> tuple[Rendered | None, str | None]:
        try:
            rendered = self.render(messages, tools=tools)
            if not self.has_generation_markers:
                rendered = self._with_derived_spans(rendered, messages, tools)
        except TemplateError:
            return None, "template_refuses"
        answers = [_content(m) for m in map(_as_mapping, messages) if m["role"] == "assistant"]
        said = [rendered.text[start:end] for start, end in rendered.spans]
        whole = len(answers) == len(said) and all(
            answer.strip() in text for answer, text in zip(answers, said, strict=True)
        )
        return rendered, None if whole else "content_changed"

    def _with_derived_spans(
        self, rendered: Rendered, messages: Messages, tools: ToolSchemas | None
    ) -> Rendered:
        """Without any span where the template does more than append."""

        def text(part: Sequence[Fields], prompt: bool) -> str:
            return self._render(list(map(_as_mapping, part)), prompt, tools)[0]

        plain = list(map(_as_mapping, messages))
        spans = derived_spans(text, plain, rendered.text, self.stop_strings)
        return Rendered(rendered.text, spans or ())

    def _render(
        self,
        messages: list[dict[str, object]],
        add_generation_prompt: bool,
        tools: ToolSchemas | None,
    ) -> tuple[str, tuple[tuple[int, int], ...]]:
        return jinja.render(
            self.source,
            {
                **self.special_tokens,
                "messages": messages,
                "tools": tools,
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
            },
        )

    def _render_open(self, messages: list[dict[str, object]], tools: ToolSchemas | None) -> str:
        """The text up to the end of the last message's content, as transformers cuts it."""
        last = _content(messages[-1])
        messages[-1]["content"] = last + _OPEN_END
        text, _ = self._render(messages, False, tools)
        at = text.rfind(_OPEN_END.strip())
        if at < 0 or last.strip() not in text:
            raise TemplateError(
                "The chat template does not show the end of the last message, so it cannot be "
                "continued; send it without continue_final_message."
            )
        kept = text[at : at + len(_OPEN_END)] == _OPEN_END
        return text[:at] if kept else text[:at].rstrip()


_OPEN_END = "CRIA_OPEN_END_OF_FINAL_MESSAGE "
_FAULTS = {
    "template_refuses": "the chat template refuses its roles or their order.",
    "content_changed": "the chat template changes or leaves out an assistant message.",
    "seam_token": "a token holds both assistant text and text around it; trim its messages.",
}
_REFUSED = Encoded(np.zeros(0, np.int32), np.zeros(0, np.bool_), "", "template_refuses")


_TOOL_PROBE = (
    Message("user", "How many are left?"),
    Message(
        "assistant",
        "",
        tool_calls='[{"id": "call00001", "type": "function", '
        '"function": {"name": "look_up", "arguments": {"of": "oranges"}}}]',
    ),
    Message("tool", "17 crates", tool_call_id="call00001", name="look_up"),
    Message("assistant", "Seventeen."),
)


def _content(message: Fields) -> str:
    """The text of a message; none where it holds calls only, or parts that are no text."""
    content = message["content"]
    return content if isinstance(content, str) else ""


def _as_mapping(message: Message | Fields) -> dict[str, object]:
    if not isinstance(message, Message):
        return dict(message)
    mapping: dict[str, object] = {"role": message.role, "content": message.content}
    if message.tool_calls is not None:
        mapping["tool_calls"] = json.loads(message.tool_calls)
    if message.tool_call_id is not None:
        mapping["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        mapping["name"] = message.name
    return mapping


def _learned(messages: Messages) -> list[bool]:
    """Of each assistant message, whether it is in the loss."""
    return [
        not isinstance(message, Message) or message.is_learned
        for message in messages
        if (message.role if isinstance(message, Message) else message["role"]) == "assistant"
    ]


def _masked(
    rendered: Rendered,
    learned: Sequence[bool],
    ids: npt.NDArray[np.int32],
    edges: TokenEdges | tokenizers.Encoding,
    fault: str | None,
) -> Encoded:
    mask = np.zeros(len(ids), np.bool_)
    flags = learned if len(learned) == len(rendered.spans) else [True] * len(rendered.spans)
    for (start, end), is_learned in zip(rendered.spans, flags, strict=True):
        first, seam_before = _token_edge(edges, len(ids), start)
        stop, seam_after = _token_edge(edges, len(ids), end)
        mask[first:stop] = is_learned
        if seam_before or seam_after:
            fault = fault or "seam_token"
    return Encoded(ids, mask, rendered.text, fault, edges)


def _token_edge(
    encoding: TokenEdges | tokenizers.Encoding, num_tokens: int, char: int
) -> tuple[int, bool]:
    """Index of the first token that begins at or after `char`, and whether one straddles it.

    Tokens "Hi", " the", "re" of "Hi there": char 2 gives (1, False); char 4, inside " the", gives
    (2, True); char 8, the end, gives (3, False).
    """
    if isinstance(encoding, TokenEdges):
        return encoding.at(char)
    token = encoding.char_to_token(char)
    if token is not None:
        begin = _chars(encoding, token)[0]
        return (token, False) if begin == char else (token + 1, True)
    last_end = _chars(encoding, num_tokens - 1)[1] if num_tokens else 0
    if last_end <= char:
        return num_tokens, False
    begins = [begin for begin, _ in encoding.offsets]  # the tokenizer drops this character
    return int(np.searchsorted(begins, char)), False


def _chars(encoding: tokenizers.Encoding, token: int) -> tuple[int, int]:
    return cast(tuple[int, int], encoding.token_to_chars(token))
