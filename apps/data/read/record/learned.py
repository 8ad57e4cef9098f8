"""Whether an answer is in the loss, under the names that formats give to it."""

from collections.abc import Iterable

from apps.common.json_value import JsonObject
from apps.data.read.record.flags import yes_or_no
from apps.data.read.record.layout import Turn

WEIGHTS = (
    *("weight", "loss_weight", "train", "training", "trainable", "loss"),
    *("output_with_loss", "with_loss"),
)

_LABELS = frozenset(("label", "kto_tag"))


def is_learned(said: JsonObject) -> bool:
    """`weight: 0` and `train: false` keep an answer in the context and out of the loss."""
    given = (said.get(key) for key in WEIGHTS)
    return all(value is None or yes_or_no(value) is not False for value in given)


def labels_read(record: JsonObject, turns: Iterable[Turn]) -> set[str]:
    """The columns that say whether an answer is a good one, as preference data sets (KTO) do; what
    is said to be a bad one stays out of the loss. Numbers are classes of another kind.

    https://huggingface.co/docs/trl/dataset_formats and LLaMA-Factory's data/README.md name them.
    """
    if _LABELS.isdisjoint(record):
        return set()
    read = {key for key in _LABELS if str(record.get(key)).strip().lower() in ("true", "false")}
    if any(yes_or_no(record[key]) is False for key in read):
        for turn in turns:
            turn.is_learned = False
    return read


def weights_read(said: JsonObject) -> set[str]:
    """The fields that say yes or no; a weight between is not carried."""
    return {key for key in WEIGHTS if key in said and yes_or_no(said[key]) is not None}
