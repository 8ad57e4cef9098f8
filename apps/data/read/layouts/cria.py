"""What people said on Cria's own page, as `apps.serve conversations export` writes it."""

from apps.common.json_value import JsonObject
from apps.data.read.record.layout import Layout, Names, RawConversation
from apps.data.read.record.lists import holds_messages, read_list


def _recognises(record: JsonObject) -> bool:
    return "consent" in record and holds_messages(record)


def _read(record: JsonObject, names: Names) -> RawConversation:
    """Flags that people or filters set (a list of words) are the record's own."""
    conversation = read_list(record, names)
    flags = record.get("flags")
    if isinstance(flags, list) and flags:
        conversation.flags.add("moderation")
    kept = ("flags", "consent") if record.get("consent") else ("flags",)
    conversation.ignored = [key for key in conversation.ignored if key not in kept]
    return conversation


LAYOUT = Layout(
    name="cria",
    what="conversations exported from Cria's page: ShareGPT with consent and flags",
    example='{"id": "a", "model": "tuned", "consent": true, "flags": [], "conversations": '
    '[{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}',
    recognises=_recognises,
    read=_read,
)
