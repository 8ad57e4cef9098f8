"""Rules on what a record is and says of itself."""

from apps.data.read.records import Record
from apps.data.rules.profiles import Rules
from apps.data.rules.verdict import Drop, Verdict


def flagged(record: Record, rules: Rules) -> Verdict:
    """A record with a flag of its source: toxic, redacted, a verdict of moderation..."""
    found = sorted(record.flags & set(rules.flagged or ()))
    return Drop(found[0]) if found else None


def continuation(record: Record, rules: Rules) -> Verdict:
    """A piece of a split dump that begins with an answer, its question in a piece that is lost."""
    if rules.continuation != "drop" or not record.is_continuation:
        return None
    return Drop(record.source_id)
