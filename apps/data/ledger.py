"""What became of every record, message and byte of the raw input. It always adds up.

    records  = kept + dropped(by rule) + quarantined(by reason)
    messages = kept + trimmed(by rule) + dropped + quarantined
    bytes    = kept + trimmed + dropped + quarantined + framing

A message's bytes are the UTF-8 bytes of its value. Framing is the JSON around the values of the
records that could be read, and whatever lies between records. A quarantined record's bytes are its
whole span. For compressed files the decoded bytes are counted, for Parquet the JSON of each row.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from apps.common.errors import CorruptError
from apps.data.units import Json

UNITS = ("records", "messages", "bytes")
_PARTS = ("trimmed", "dropped", "quarantined")


@dataclass(slots=True)
class Account:
    """Of one unit: records, messages or bytes."""

    input: int = 0
    kept: int = 0
    framing: int = 0
    trimmed: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)

    def balance(self) -> int:
        parts = sum(sum(getattr(self, part).values()) for part in _PARTS)
        return self.input - self.kept - self.framing - parts


@dataclass(slots=True)
class Ledger:
    records: Account = field(default_factory=Account)
    messages: Account = field(default_factory=Account)
    bytes: Account = field(default_factory=Account)
    repairs: Counter[str] = field(default_factory=Counter)
    """Messages that a rule changed, by rule."""
    forms: Counter[str] = field(default_factory=Counter)
    """Messages by what they were: assistant_html, user_plain..."""

    def quarantine(self, reason: str, *, messages: int, num_bytes: int) -> None:
        for unit, amount in zip(UNITS, (1, messages, num_bytes), strict=True):
            account: Account = getattr(self, unit)
            account.input += amount
            account.quarantined[reason] += amount

    def drop(self, rule: str, *, messages: int, num_bytes: int, framing: int) -> None:
        for unit, amount in zip(UNITS, (1, messages, num_bytes), strict=True):
            account: Account = getattr(self, unit)
            account.input += amount
            account.dropped[rule] += amount
        self.frame(framing)

    def keep(self, *, messages: int, num_bytes: int, framing: int) -> None:
        for unit, amount in zip(UNITS, (1, messages, num_bytes), strict=True):
            account: Account = getattr(self, unit)
            account.input += amount
            account.kept += amount
        self.frame(framing)

    def trim(self, rule: str, *, messages: int, num_bytes: int) -> None:
        for account, amount in ((self.messages, messages), (self.bytes, num_bytes)):
            account.input += amount
            account.trimmed[rule] += amount

    def drop_kept(self, rule: str, *, records: int, messages: int, num_bytes: int) -> None:
        """Records that were kept turn out to be duplicates."""
        for unit, amount in zip(UNITS, (records, messages, num_bytes), strict=True):
            account: Account = getattr(self, unit)
            account.kept -= amount
            account.dropped[rule] += amount

    def frame(self, num_bytes: int) -> None:
        self.bytes.input += num_bytes
        self.bytes.framing += num_bytes

    def add(self, other: "Ledger") -> None:
        for unit in UNITS:
            mine, theirs = getattr(self, unit), getattr(other, unit)
            mine.input += theirs.input
            mine.kept += theirs.kept
            mine.framing += theirs.framing
            for part in _PARTS:
                getattr(mine, part).update(getattr(theirs, part))
        self.repairs.update(other.repairs)
        self.forms.update(other.forms)

    def check(self) -> None:
        """Raises CorruptError unless every account adds up."""
        for unit in UNITS:
            account: Account = getattr(self, unit)
            if account.balance() != 0:
                raise CorruptError(
                    f"The ledger's {unit} do not add up: {account.input:,} came in, "
                    f"{account.input - account.balance():,} are accounted for; please report this."
                )

    def to_json(self) -> Json:
        return {
            **{unit: _account_json(getattr(self, unit)) for unit in UNITS},
            "repairs": _sorted(self.repairs),
            "forms": _sorted(self.forms),
        }

    @classmethod
    def from_json(cls, value: Json) -> "Ledger":
        accounts = {unit: _account_from(value[unit]) for unit in UNITS}
        return cls(**accounts, repairs=Counter(value["repairs"]), forms=Counter(value["forms"]))


def _account_json(account: Account) -> Json:
    fields: dict[str, Any] = {"input": account.input, "kept": account.kept}
    fields |= {"framing": account.framing}
    return fields | {part: _sorted(getattr(account, part)) for part in _PARTS}


def _account_from(value: Json) -> Account:
    counters = {part: Counter(value[part]) for part in _PARTS}
    return Account(input=value["input"], kept=value["kept"], framing=value["framing"], **counters)


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return {name: counter[name] for name in sorted(counter) if counter[name]}
