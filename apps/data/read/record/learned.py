"""Whether an answer is in the loss, under the names that formats give to it."""

from apps.common.json_value import JsonObject
from apps.data.read.record.flags import yes_or_no

WEIGHTS = (
    *("weight", "loss_weight", "train", "training", "trainable", "loss"),
    *("output_with_loss", "with_loss"),
)


def is_learned(said: JsonObject) -> bool:
    """`weight: 0` and `train: false` keep an answer in the context and out of the loss."""
    given = (said.get(key) for key in WEIGHTS)
    return all(value is None or yes_or_no(value) is not False for value in given)


def weights_read(said: JsonObject) -> set[str]:
    """The fields that say yes or no; a weight between is not carried."""
    return {key for key in WEIGHTS if key in said and yes_or_no(said[key]) is not None}
