"""What a rule of the cleaner is: a small pure function of a conversation and the settings.

rule(record, rules) -> None (nothing to do) | Drop(detail) | list[Turn] (the turns that stay)
"""

from collections.abc import Callable
from dataclasses import dataclass

from apps.data.read.record.layout import Turn
from apps.data.read.records import Record
from apps.data.rules.profiles import Rules


@dataclass(frozen=True, slots=True)
class Drop:
    detail: str


Verdict = Drop | list[Turn] | None
Rule = Callable[[Record, Rules], Verdict]
