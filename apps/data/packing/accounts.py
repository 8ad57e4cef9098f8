"""What became of every conversation and round that was packed, as the ledger shows it."""

from typing import Any

from apps.common.errors import CorruptError
from apps.data.ledger import Counts
from apps.data.packing.tokenize import TokenLedger


def account(ledger: TokenLedger) -> dict[str, Any]:
    """Raises CorruptError when it does not add up."""
    _check(
        "conversations",
        ledger.conversations,
        ledger.kept_conversations,
        ledger.dropped_conversations,
    )
    _check("rounds", ledger.rounds, ledger.kept_rounds, ledger.dropped_rounds)
    return {
        "conversations": {
            "read": ledger.conversations,
            "kept": ledger.kept_conversations,
            "dropped": dict(ledger.dropped_conversations),
        },
        "rounds": {
            "read": ledger.rounds,
            "kept": ledger.kept_rounds,
            "dropped": dict(ledger.dropped_rounds),
            "truncated": ledger.truncated_rounds,
        },
        "control_tokens_broken": ledger.control_tokens_broken,
        "tool_turns_not_shown": ledger.tool_turns_not_shown,
    }


def _check(name: str, read: int, kept: int, dropped: Counts) -> None:
    if read != kept + sum(dropped.values()):
        raise CorruptError(
            f"The ledger's {name} do not add up: {read:,} read, {kept:,} kept, dropped {dropped}; "
            "please report this."
        )
