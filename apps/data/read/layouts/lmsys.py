"""LMSYS-Chat-1M: conversations with 25 models on the arena's page.

https://huggingface.co/datasets/lmsys/lmsys-chat-1m names the columns.
"""

from apps.common.json_value import JsonObject
from apps.data.read.record.layout import Layout
from apps.data.read.record.lists import message_list, read_list


def _recognises(record: JsonObject) -> bool:
    has_own = "openai_moderation" in record or "turn" in record
    return "conversation_id" in record and has_own and message_list(record) is not None


LAYOUT = Layout(
    name="lmsys",
    what="LMSYS-Chat-1M: conversation_id, model, conversation, openai_moderation",
    example='{"conversation_id": "c", "model": "vicuna-13b", "conversation": '
    '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], '
    '"openai_moderation": [{"flagged": false}]}',
    recognises=_recognises,
    read=read_list,
)
