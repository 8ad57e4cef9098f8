"""Language, repetition, severity and quality of a conversation, and the rules that read them."""

import functools

import zstandard

from apps.common.text import lexicon
from apps.data.read.records import Record
from apps.data.rules import language, prose, quality
from apps.data.rules.profiles import Rules
from apps.data.rules.verdict import Drop, Verdict

_LINE_CHARS = 20
"""Shorter lines (brackets, list marks) repeat in good text."""
_REPETITION_MIN_CHARS = 600


def score(record: Record, rules: Rules) -> None:
    """Put the scores on the record; thresholds are the rules' business."""
    every = rules.scores == "all" or bool(rules.min_quality)
    scores: dict[str, float] = {}
    proses: list[str] = []
    if every or rules.language_keep or rules.language_skip or rules.max_severity != 3:
        proses = [prose.of(turn.text) for turn in record.turns if turn.role != "system"]
    if every or rules.language_keep or rules.language_skip:
        record.language, share = language.of(proses)
        scores["language"] = round(share, 4)
    if every or rules.max_repetition != 1:
        answers = [turn.text for turn in record.turns if turn.role == "assistant"]
        scores["repetition"] = round(max(map(repetition, answers), default=0.0), 4)
    if every or rules.max_severity != 3:
        scores["severity"] = float(lexicon.severity("\n".join(proses)))
    if every:
        scores |= quality.of(record.turns, scores)
    record.scores = scores


def repetition(text: str) -> float:
    """Share (0-1) of an answer that repeats: of its longer lines, or of its bytes when compressed.

    Prose compresses to .4-.6 of its bytes and code to .2-.4 at this level; a loop to under .1.
    """
    if len(text) < _REPETITION_MIN_CHARS:
        return 0.0
    lines = [line for line in text.split("\n") if len(line) >= _LINE_CHARS]
    total = sum(map(len, lines))
    repeated = 1 - sum(map(len, set(lines))) / total if total > len(text) / 2 else 0.0
    raw = text[: 1 << 16].encode()
    compressed = 1 - len(_compressor().compress(raw)) / len(raw)
    return max(repeated, compressed)


@functools.cache
def _compressor() -> zstandard.ZstdCompressor:
    return zstandard.ZstdCompressor(level=1)


def language_keep(record: Record, rules: Rules) -> Verdict:
    if rules.language_keep and record.language and record.language not in rules.language_keep:
        return Drop(record.language)
    return None


def language_skip(record: Record, rules: Rules) -> Verdict:
    if rules.language_skip and record.language in rules.language_skip:
        return Drop(record.language or "")
    return None


def max_severity(record: Record, rules: Rules) -> Verdict:
    severity = int(record.scores.get("severity", 0))
    limit = lexicon.MAX_SEVERITY if rules.max_severity is None else rules.max_severity
    return Drop(f"severity {severity}") if severity > limit else None


def max_repetition(record: Record, rules: Rules) -> Verdict:
    score = record.scores.get("repetition", 0.0)
    limit = 1.0 if rules.max_repetition is None else rules.max_repetition
    return Drop(f"{score:.2f}") if score > limit else None


def min_quality(record: Record, rules: Rules) -> Verdict:
    score, limit = record.scores.get("quality", 1.0), rules.min_quality or 0.0
    return Drop(f"{score:.2f}") if score < limit else None
