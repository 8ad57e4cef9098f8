"""ShareGPT dumps and their kin: `from` and `value`, answers as page HTML or as Markdown."""

from apps.common.json_value import JsonObject
from apps.data.read.record.layout import Layout
from apps.data.read.record.lists import holds_messages, read_list


def _recognises(record: JsonObject) -> bool:
    return holds_messages(record, ("from", "speaker"))


LAYOUT = Layout(
    name="sharegpt",
    what="ShareGPT dumps and their kin: messages with from and value",
    example='{"id": "a", "conversations": [{"from": "human", "value": "Hi"}, '
    '{"from": "gpt", "value": "<p>Hello</p>"}]}',
    recognises=_recognises,
    read=read_list,
    has_html=True,
)
