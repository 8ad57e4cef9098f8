"""The second request about a judgment that cannot be read: its own text, and the wanted form.

The form is asked for as structured output too (`response_format`), which endpoints that do not
offer it refuse once and are then not sent again.
"""

from apps.eval.calls.lines import Message
from apps.eval.protocols.form import Form


def repair_messages(form: Form, said: str) -> tuple[Message, ...]:
    """What follows the messages of a call whose response was `said`."""
    wanted = (
        "Your verdict could not be read. Do not judge anew: state the verdict that you reached, as "
        f"JSON of exactly this form and nothing else: {form.json_example()}."
    )
    asked: Message = {"role": "user", "content": wanted}
    return ({"role": "assistant", "content": said}, asked) if said.strip() else (asked,)


def response_format(form: Form) -> dict[str, object]:
    """The form's JSON schema as OpenAI's `response_format`."""
    schema = {"name": "verdict", "strict": True, "schema": form.json_schema()}
    return {"type": "json_schema", "json_schema": schema}
