"""What the assistant says, of a template that does not mark it: by rendering with and without it.

    whole    <s>[INST] q [/INST] a</s>[INST] r [/INST] b</s>
    before   <s>[INST] q [/INST]                                 without the answer, but its prompt
    after    <s>[INST] q [/INST] a</s>                           up to and with the answer
    said                         [ a</s>]                        what is in `after` beyond `before`

That holds where a template only appends: each text must be the beginning of the next. White space
behind the token that ends a turn belongs to the template, as in `<|im_end|>\\n`.
"""

from collections.abc import Callable, Mapping, Sequence

Render = Callable[[Sequence[Mapping[str, object]], bool], str]
"""Messages, and whether to end with what precedes an answer -> text"""


def derived_spans(
    render: Render, messages: Sequence[Mapping[str, object]], whole: str, stops: Sequence[str]
) -> tuple[tuple[int, int], ...] | None:
    """Character ranges of the answers in `whole`; None where the template does more than append."""
    spans: list[tuple[int, int]] = []
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(messages[:place], True) if place else ""
        after = render(messages[: place + 1], False)
        if not (after.startswith(before) and whole.startswith(after)):
            return None
        spoken = after.rstrip()
        ends_in_stop = any(spoken.endswith(stop) for stop in stops)
        spans.append((len(before), len(spoken) if ends_in_stop else len(after)))
    return tuple(spans)
