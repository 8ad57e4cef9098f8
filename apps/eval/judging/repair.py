"""The second request about a judgment that cannot be read: its own text, and the wanted form.

The form is asked for as structured output too (`response_format`), which endpoints that do not
offer it refuse once and are then not sent again.
"""

from typing import Any

from apps.eval.calls.lines import Message
from apps.eval.judging.parsing import Format

_FORMS = {
    "letter": '{"verdict": "A"}, with A if Assistant A is better, B if Assistant B is, C for a tie',
    "label": '{"verdict": "A>B"}, with one of A>>B, A>B, A=B, B>A, B>>A',
    "rating": '{"rating": 5}, with your rating from 1 to 10 in place of 5',
    "scores": '{"scores": [7, 8]}, with the scores from 1 to 10 of Assistant 1 and Assistant 2',
}
_VALUES: dict[str, dict[str, Any]] = {
    "letter": {"verdict": {"type": "string", "enum": ["A", "B", "C"]}},
    "label": {"verdict": {"type": "string", "enum": ["A>>B", "A>B", "A=B", "B>A", "B>>A"]}},
    "rating": {"rating": {"type": "number"}},
    "scores": {"scores": {"type": "array", "items": {"type": "number"}}},
}


def repair_messages(fmt: Format, said: str) -> tuple[Message, ...]:
    """What follows the messages of a call whose response was `said`."""
    wanted = (
        "Your verdict could not be read. Do not judge anew: state the verdict that you reached, as "
        f"JSON of exactly this form and nothing else: {_FORMS[fmt]}."
    )
    asked: Message = {"role": "user", "content": wanted}
    return ({"role": "assistant", "content": said}, asked) if said.strip() else (asked,)


def response_format(fmt: Format) -> dict[str, Any]:
    """JSON schema of the form, as OpenAI's `response_format`."""
    values = _VALUES[fmt]
    schema = {
        "type": "object",
        "properties": values,
        "required": [*values],
        "additionalProperties": False,
    }
    return {
        "type": "json_schema",
        "json_schema": {"name": "verdict", "strict": True, "schema": schema},
    }
