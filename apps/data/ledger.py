"""What became of every record, message and byte of the raw input. It always adds up.

    records  = kept + joined + dropped(by rule) + quarantined(by reason)
    messages = kept + trimmed(by rule) + dropped + quarantined
    bytes    = kept + trimmed + dropped + quarantined + framing

Joined are records that became parts of others: pieces of a split dump. A message's bytes are the
UTF-8 bytes of its value. Framing is the JSON around the values of the records that could be read,
and whatever lies between records. A quarantined record's bytes are its whole span. For compressed
files the decoded bytes are counted, for tables the JSON of each row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.common.errors import CorruptError
from apps.common.files import config as configs

UNITS = ("records", "messages", "bytes")
PARTS = ("trimmed", "dropped", "quarantined")

Counts = dict[str, int]
"""By the name of a rule, reason or form."""


@dataclass(slots=True)
class Account:
    """What became of one unit: records, messages or bytes."""

    input: int = 0
    kept: int = 0
    framing: int = 0
    """bytes only"""
    joined: int = 0
    """records only"""
    trimmed: Counts = field(default_factory=Counts)
    dropped: Counts = field(default_factory=Counts)
    quarantined: Counts = field(default_factory=Counts)

    def of(self, part: str) -> Counts:
        """One of PARTS."""
        return {
            "trimmed": self.trimmed,
            "dropped": self.dropped,
            "quarantined": self.quarantined,
        }[part]

    def balance(self) -> int:
        """Input that is not accounted for: 0, or the ledger is wrong."""
        parts = sum(sum(self.of(part).values()) for part in PARTS)
        return self.input - self.kept - self.framing - self.joined - parts


def add_to(counts: Counts, name: str, amount: int) -> None:
    counts[name] = counts.get(name, 0) + amount


@dataclass(slots=True)
class Ledger:
    """Accounts of all three units; ledgers of ranges are added up."""

    records: Account = field(default_factory=Account)
    messages: Account = field(default_factory=Account)
    bytes: Account = field(default_factory=Account)
    repairs: Counts = field(default_factory=Counts)
    """Messages that a rule changed, by rule; and that reading mended, by what was wrong."""
    forms: Counts = field(default_factory=Counts)
    """Messages by what they were: assistant_html, user_plain..."""
    layouts: Counts = field(default_factory=Counts)
    """Records by layout."""
    ignored: Counts = field(default_factory=Counts)
    """Records by the fields in them that say something and that nothing carries."""
    continuations: int = 0
    """Records that begin with an answer, and whose predecessor is not there."""

    def of(self, unit: str) -> Account:
        """One of UNITS."""
        return {"records": self.records, "messages": self.messages, "bytes": self.bytes}[unit]

    def quarantine(self, reason: str, *, messages: int, num_bytes: int) -> None:
        for unit, amount in zip(UNITS, (1, messages, num_bytes), strict=True):
            account = self.of(unit)
            account.input += amount
            add_to(account.quarantined, reason, amount)

    def drop(self, rule: str, *, messages: int, num_bytes: int, framing: int) -> None:
        for unit, amount in zip(UNITS, (1, messages, num_bytes), strict=True):
            account = self.of(unit)
            account.input += amount
            add_to(account.dropped, rule, amount)
        self.frame(framing)

    def keep(self, *, messages: int, num_bytes: int, framing: int) -> None:
        for unit, amount in zip(UNITS, (1, messages, num_bytes), strict=True):
            account = self.of(unit)
            account.input += amount
            account.kept += amount
        self.frame(framing)

    def trim(self, rule: str, *, messages: int, num_bytes: int) -> None:
        for account, amount in ((self.messages, messages), (self.bytes, num_bytes)):
            account.input += amount
            add_to(account.trimmed, rule, amount)

    def drop_kept(self, rule: str, *, records: int, messages: int, num_bytes: int) -> None:
        """Records that were kept turn out to be duplicates."""
        for unit, amount in zip(UNITS, (records, messages, num_bytes), strict=True):
            account = self.of(unit)
            account.kept -= amount
            add_to(account.dropped, rule, amount)

    def join(self, num_records: int) -> None:
        """Records that became parts of another one."""
        self.records.input += num_records
        self.records.joined += num_records

    def frame(self, num_bytes: int) -> None:
        self.bytes.input += num_bytes
        self.bytes.framing += num_bytes

    def add(self, other: "Ledger") -> None:
        for unit in UNITS:
            mine, theirs = self.of(unit), other.of(unit)
            mine.input += theirs.input
            mine.kept += theirs.kept
            mine.framing += theirs.framing
            mine.joined += theirs.joined
            for part in PARTS:
                _add_all(mine.of(part), theirs.of(part))
        _add_all(self.repairs, other.repairs)
        _add_all(self.forms, other.forms)
        _add_all(self.layouts, other.layouts)
        _add_all(self.ignored, other.ignored)
        self.continuations += other.continuations

    def check(self) -> None:
        """Raises CorruptError unless every account adds up."""
        for unit in UNITS:
            account = self.of(unit)
            if account.balance() != 0:
                raise CorruptError(
                    f"The ledger's {unit} do not add up: {account.input:,} came in, "
                    f"{account.input - account.balance():,} are accounted for; please report this."
                )

    def to_json(self) -> dict[str, Any]:
        return {
            **{unit: _account_json(self.of(unit)) for unit in UNITS},
            "repairs": _sorted(self.repairs),
            "forms": _sorted(self.forms),
            "layouts": _sorted(self.layouts),
            "ignored": _sorted(self.ignored),
            "continuations": self.continuations,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Ledger":
        return configs.from_dict(cls, value)


def _add_all(counts: Counts, more: Counts) -> None:
    for name, amount in more.items():
        add_to(counts, name, amount)


def _account_json(account: Account) -> dict[str, int | Counts]:
    amounts: dict[str, int | Counts] = {"input": account.input, "kept": account.kept}
    amounts |= {"framing": account.framing, "joined": account.joined}
    return amounts | {part: _sorted(account.of(part)) for part in PARTS}


def _sorted(counts: Counts) -> Counts:
    return {name: counts[name] for name in sorted(counts) if counts[name]}
