"""How good a conversation looks, from itself alone: a number from 0 to 1, and the parts of it.

    readability  share of letters in what is printed, and sentences of a length that people read
    length       answers of 200 characters and more have 1
    balance      what is answered, against what was asked
    answered     share of the answers that do not open with a refusal
    language     the detector's confidence       (scored before)
    repetition   of the worst answer             (scored before)

Quality is the geometric mean of the six, so one bad part is seen. It ranks conversations to look at
and knows nothing of truth: the report shows the lowest, and `--rules.min-quality` sets a limit.
"""

import math
import re
import string
from collections.abc import Sequence

from apps.common.text.words import num_words
from apps.data.read.record.layout import Turn
from apps.data.rules import phrases

_READ_CHARS = 800
"""Of the answers' beginnings, for their readability."""
_READ_ANSWERS = 4
_FULL_CHARS = 200
_ASKED_SHARE = 0.2
"""An answer a fifth as long as the question, or longer, is balanced."""
_SENTENCE_END = re.compile("[.!?\u3002\uff01\uff1f\u0964\u061f]+|\n+")
_LONG_SENTENCE_WORDS = 40
_LONG_SENTENCE_CHARS = 80
"""No text of fewer characters has so many words."""
_PROSE_LETTERS = 0.9
"""Of what is printed in prose, the share of letters."""
_FLOOR = 0.01
_ASCII_LETTERS = string.ascii_letters.encode()


def of(turns: Sequence[Turn], scores: dict[str, float]) -> dict[str, float]:
    """`quality` and those of its parts that are not among the scores yet."""
    answers = [turn.text for turn in turns if turn.role == "assistant"]
    if not answers:
        return {}
    asked = sum(len(turn.text) for turn in turns if turn.role == "user")
    said = sum(map(len, answers))
    read = "\n".join(text[:_READ_CHARS] for text in answers[:_READ_ANSWERS])
    refused = sum(phrases.refusal_in(text) != "" for text in answers)
    parts = {
        "readability": readability(read),
        "length": min(1.0, said / len(answers) / _FULL_CHARS),
        "balance": min(1.0, said / max(1.0, _ASKED_SHARE * asked)),
        "answered": 1 - refused / len(answers),
    }
    others = (scores.get("language") or 1.0, 1 - scores.get("repetition", 0.0))
    every = [max(_FLOOR, part) for part in (*parts.values(), *others)]
    parts["quality"] = math.exp(sum(map(math.log, every)) / len(every))
    return {name: round(part, 4) for name, part in parts.items()}


def readability(text: str) -> float:
    """Letters among all that is printed, times the sentences that have at most 40 words."""
    text = text[:_READ_CHARS]
    num_printed = len("".join(text.split()))
    if not num_printed:
        return 0.0
    letters = _num_letters(text) / num_printed
    sentences = [part for part in _SENTENCE_END.split(text) if part.strip()]
    long = sum(
        len(part) > _LONG_SENTENCE_CHARS and num_words(part) > _LONG_SENTENCE_WORDS
        for part in sentences
    )
    return min(1.0, letters / _PROSE_LETTERS) * (1 - long / max(1, len(sentences)))


def _num_letters(text: str) -> int:
    if text.isascii():
        return len(text) - len(text.encode().translate(None, _ASCII_LETTERS))
    return sum(map(str.isalpha, text))
