"""What a record or a message says of itself: toxic, redacted, flagged by moderation; and whether
its answer is in the loss, under the names that formats give to it."""

from collections.abc import Iterable

from apps.common.json_value import JsonObject
from apps.data.read.record.layout import Turn, list_of, object_of
from apps.data.read.record.parse import parse_cell

MODERATION = ("openai_moderation", "moderation", "moderation_results")
FLAGS = {
    **dict.fromkeys(("toxic", "is_toxic"), "toxic"),
    **dict.fromkeys(("redacted", "is_redacted"), "redacted"),
    **dict.fromkeys(("flagged", "is_flagged", "nsfw", "is_nsfw"), "moderation"),
}
"""Names of such fields, and the flag that each is."""
_WORDS = {
    **dict.fromkeys(("true", "yes", "t", "y"), True),
    **dict.fromkeys(("false", "no", "f", "n"), False),
}
WEIGHTS = (
    *("weight", "loss_weight", "train", "training", "trainable", "loss"),
    *("output_with_loss", "with_loss"),
)
_LABELS = frozenset(("label", "kto_tag"))


def flags_of(said: JsonObject) -> set[str]:
    """Which flags a record or a message has."""
    flags = {flag for key, flag in FLAGS.items() if key in said and yes_or_no(said[key])}
    if any(key in said and _is_flagged(said[key]) for key in MODERATION):
        flags.add("moderation")
    return flags


def yes_or_no(value: object) -> bool | None:
    """Tables of pandas have numbers and texts where others have true and false; None: neither, as
    of the empty cells and NaN where nothing is said."""
    text = str(value).strip().lower()
    if text in _WORDS:
        return _WORDS[text]
    try:
        return {0.0: False, 1.0: True}.get(float(text))
    except ValueError:
        return None


def _is_flagged(value: object) -> bool:
    """A verdict of moderation, of the whole or of each turn.

    {"flagged": true}    {"results": [{"flagged": true}]}    {"categories": {"hate": true}}
    """
    if isinstance(value, str):
        value = parse_cell(value)
    one = object_of(value)
    if one is None:
        return any(_is_flagged(item) for item in list_of(value) or ())
    if "flagged" in one:
        return yes_or_no(one["flagged"]) is True
    categories = object_of(one.get("categories")) or {}
    return any(map(yes_or_no, categories.values())) or _is_flagged(one.get("results"))


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
