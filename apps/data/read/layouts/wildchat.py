"""WildChat: ChatGPT behind a public page, with hashes, languages and moderation.

https://huggingface.co/datasets/allenai/WildChat-1M names the columns.
"""

from apps.common.json_value import JsonObject
from apps.data.read.record.layout import Layout
from apps.data.read.record.lists import message_list, read_list


def _recognises(record: JsonObject) -> bool:
    return "conversation_hash" in record and message_list(record) is not None


LAYOUT = Layout(
    name="wildchat",
    what="WildChat: conversation, conversation_hash, toxic, redacted, openai_moderation",
    example='{"conversation_hash": "h", "model": "gpt-4", "conversation": '
    '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], '
    '"toxic": false, "redacted": false}',
    recognises=_recognises,
    read=read_list,
)
