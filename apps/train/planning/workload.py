"""How much there is to train on: tokens, packed rows, optimizer steps.

Either measured, from the `pack.json` of a packed folder, or stated as conversations and tokens per
conversation. The defaults are the published Vicuna set: 70,000 conversations at the 2,960 tokens
that FastChat's own figures give (370 M tokens over 125,000 conversations).
"""

import math
from dataclasses import dataclass, replace

from apps.common.errors import InputError
from apps.common.packs import open_pack
from apps.train.config import RunConfig

VICUNA_CONVERSATIONS = 70_000
VICUNA_TOKENS_PER_CONVERSATION = 2_960
ROW_TOKENS = 2_048
PACKED_FILL = 0.985
"""Share of a packed row that is real tokens, when no pack is at hand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """One epoch's data and how often it is seen."""

    epoch_tokens: int
    """Real tokens in one epoch."""
    epoch_rows: int
    """Packed rows in one epoch."""
    row_tokens: int
    """Token slots of a row."""
    tokens_per_conversation: float
    """Real tokens of a conversation, on average; those that lie alone in a row are cut there."""
    epochs: float
    """Times the data is seen."""
    source: str
    """Where the figures come from."""

    @property
    def fill(self) -> float:
        """Share of slots that hold real tokens."""
        return self.epoch_tokens / (self.epoch_rows * self.row_tokens)

    @property
    def attended_tokens(self) -> float:
        """Row length that attention has to be counted for: sum(l^2)/sum(l) of the conversations.

        A guess of twice their mean, as if lengths were exponential; never more than the row.
        """
        return min(self.row_tokens, 2 * self.tokens_per_conversation)

    @property
    def tokens(self) -> float:
        """Real tokens over all epochs."""
        return self.epoch_tokens * self.epochs

    @property
    def slots(self) -> float:
        """Token slots over all epochs: what the machine computes on."""
        return self.epoch_rows * self.row_tokens * self.epochs

    def steps(self, global_batch_rows: int) -> int:
        """Optimizer steps: the epochs laid end to end, cut into global batches; at least one."""
        return math.ceil(max(round(self.epoch_rows * self.epochs), 1) / global_batch_rows)

    def cut(self, rows: int) -> "Workload":
        """The same data for `rows` rows in all, however many epochs that is."""
        return replace(self, epochs=rows / self.epoch_rows)


def stated(
    conversations: int, tokens_per_conversation: int, row_tokens: int, epochs: float, fill: float
) -> Workload:
    """A workload from counts alone."""
    epoch_tokens = conversations * tokens_per_conversation
    return Workload(
        epoch_tokens=epoch_tokens,
        epoch_rows=math.ceil(epoch_tokens / fill / row_tokens),
        row_tokens=row_tokens,
        tokens_per_conversation=tokens_per_conversation,
        epochs=epochs,
        source=f"stated, at {fill:.1%} fill",
    )


def check_rows(config: RunConfig, row_tokens: int) -> None:
    """Refuse a pack of other rows than the settings say: for a run and its plan."""
    if config.max_length not in (None, row_tokens):
        raise InputError(
            f"{config.data} holds rows of {row_tokens} tokens but max_length is "
            f"{config.max_length}; pack again with --max-length {config.max_length}, or train with "
            f"--max-length {row_tokens}."
        )


def from_pack(pack_uri: str, epochs: float) -> Workload:
    """The training split of a packed folder."""
    info = open_pack(pack_uri).info
    train = info.splits["train"]
    if not train.num_rows:
        raise InputError(f"{pack_uri} has no training rows; pack more conversations.")
    return Workload(
        epoch_tokens=train.num_tokens,
        epoch_rows=train.num_rows,
        row_tokens=info.max_length,
        tokens_per_conversation=train.num_tokens / train.num_segments,
        epochs=epochs,
        source=pack_uri,
    )
