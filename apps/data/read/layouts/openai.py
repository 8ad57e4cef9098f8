"""OpenAI's fine-tuning format, and every list of role and content."""

from apps.common.json_value import JsonObject
from apps.data.read.record.layout import Layout
from apps.data.read.record.lists import holds_messages, read_list


def _recognises(record: JsonObject) -> bool:
    return holds_messages(record)


LAYOUT = Layout(
    name="openai",
    what="OpenAI chat messages: role and content, parts, tool_calls, weight; exports of apps",
    example='{"messages": [{"role": "user", "content": "Hi"}, '
    '{"role": "assistant", "content": "Hello", "weight": 1}]}',
    recognises=_recognises,
    read=read_list,
)
