"""Whether a chat template can make training rows that are equal to what serving will send.

Conversations that every template should take are rendered and encoded as training and as serving
would do it, and compared.
"""

import numpy as np

from apps.common.errors import TemplateError
from apps.common.text.conversation import ChatTemplate, Encoded, Message, Role
from apps.common.text.tokenizer import Tokenizer

_ALTERNATING: tuple[Role, ...] = ("user", "assistant", "user", "assistant")
_PROBES: tuple[tuple[Message, ...], ...] = tuple(
    tuple(Message(role, content) for role, content in zip(_ALTERNATING, texts, strict=True))
    for texts in (
        ("What is 2+2?", "Four.", "And 3+3?", "Six, of course."),
        ("Grüße 你好", "- eins\n- zwei\n\n```c\nint x;\n```", "don't", "42"),
    )
)
_ROUND_TRIP = "Hello,  what is\n\n\tnaïve code?  你好 🦙\n    x = [1, 2]\n"


def check_template(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    """Refuse a template that cannot make training rows equal to what serving will send.

    Raises TemplateError, one sentence, when
    - the tokenizer does not give text back, or the text depends on the clock;
    - no token is in the loss;
    - an assistant turn's last token in the loss is no stop token: the model would never stop;
    - the ids of n messages are not a prefix of those of n + 1;
    - the prompt with the generation prompt is not a prefix of the training ids;
    - a token straddles the edge of an assistant span.
    """
    _check_round_trip(tokenizer)
    if "strftime_now" in template.source:
        raise TemplateError(
            f"Chat template {template.name!r} calls strftime_now, so its text changes by the day; "
            "write a fixed date into the template, or choose one by name (--template llama-3)."
        )
    for probe in _PROBES:
        _check_probe(template, tokenizer, probe)


def _check_round_trip(tokenizer: Tokenizer) -> None:
    """Text must come back from its tokens, but for the space that some put before every text."""
    ids = tokenizer.backend.encode(_ROUND_TRIP, add_special_tokens=False).ids
    back = tokenizer.backend.decode(ids, False)
    if back.removeprefix(" ") != _ROUND_TRIP:
        raise TemplateError(
            f"The tokenizer loses text: {_ROUND_TRIP!r} comes back as {back!r}; expected a "
            "tokenizer_class that fits tokenizer.json, such as PreTrainedTokenizerFast for a "
            "byte-level vocabulary (in tokenizer_config.json)."
        )


def _check_probe(template: ChatTemplate, tokenizer: Tokenizer, probe: tuple[Message, ...]) -> None:
    backend, name = tokenizer.backend, template.name
    rendered = template.render(probe)  # its own complaint says more than encode's fault
    _check_appends(template, probe, rendered.text)
    encoded = template.encode(backend, probe)
    if not encoded.mask.any():
        raise TemplateError(
            f"Chat template {name!r} supervises no token; expected generation markers around "
            "each assistant message and its end-of-turn token."
        )
    _check_stop_tokens(template, tokenizer, encoded)
    for num_messages in range(1, len(probe)):
        is_prompt = probe[num_messages].role == "assistant"
        text = template.render(probe[:num_messages], add_generation_prompt=is_prompt).text
        ids = backend.encode(text, add_special_tokens=False).ids
        if ids != encoded.ids[: len(ids)].tolist():
            what = "prompt ending with the generation prompt" if is_prompt else "rendering"
            raise TemplateError(
                f"Chat template {name!r} with this tokenizer: the {what} of {num_messages} "
                f"message(s) is not a prefix of that of {num_messages + 1}, so training would see "
                "other tokens than serving; expected a template that only appends."
            )
        if is_prompt and not encoded.mask[len(ids)]:
            raise TemplateError(
                f"Chat template {name!r}: the first token after the generation prompt is not "
                "supervised; let the generation marker begin where the generation prompt ends."
            )


def _check_stop_tokens(template: ChatTemplate, tokenizer: Tokenizer, encoded: Encoded) -> None:
    backend = tokenizer.backend
    control = {backend.token_to_id(text) for text in tokenizer.control_tokens}
    stops = set(template.stop_token_ids(backend)) & control
    edges = np.flatnonzero(np.diff(encoded.mask.astype(np.int8), append=0) == -1)
    for last in map(int, edges):
        while last > 0 and not backend.decode([int(encoded.ids[last])], False).strip():
            last -= 1  # white space after the end-of-turn token does no harm
        token_id = int(encoded.ids[last])
        if token_id not in stops:
            raise TemplateError(
                f"Chat template {template.name!r}: an assistant turn's last supervised token is "
                f"{backend.id_to_token(token_id)!r}, which is no stop token of this tokenizer "
                f"({', '.join(template.stop_strings) or 'it has none'}), so the model would never "
                "learn to stop; put the end-of-turn token inside the generation markers, and add "
                "it to the tokenizer as a special token if it is not one."
            )


def _check_appends(template: ChatTemplate, probe: tuple[Message, ...], whole: str) -> None:
    """Without markers only a template that appends says what the assistant said."""
    for num_messages in range(1, len(probe)):
        if template.has_generation_markers:
            return
        if not whole.startswith(template.render(probe[:num_messages]).text):
            raise TemplateError(
                f"Chat template {template.name!r} has no generation markers and renders a turn "
                "otherwise once another follows (it drops or adds thinking, for example), so "
                "nothing says which tokens to train on; choose a template by name (--template "
                "chatml), or put {% generation %} and {% endgeneration %} around each answer."
            )
