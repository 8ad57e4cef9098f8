"""What people said on Cria's own page, as `apps.serve conversations export` writes it."""

from apps.common.json_value import JsonObject
from apps.data.read.record.flags import yes_or_no
from apps.data.read.record.layout import Layout, Names, RawConversation, list_of
from apps.data.read.record.lists import holds_messages, read_list

_OWN = ("cut_off", "names_a_model")


def _recognises(record: JsonObject) -> bool:
    return "consent" in record and holds_messages(record)


def _read(record: JsonObject, names: Names) -> RawConversation:
    """The page's own words for what an answer is; any other one is a filter's verdict."""
    conversation = read_list(record, names)
    for flag in list_of(record.get("flags")) or ():
        conversation.flags.add(str(flag) if flag in _OWN else "moderation")
    if not yes_or_no(record.get("consent")):
        conversation.flags.add("no_consent")
    kept = ("flags", "consent")
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
