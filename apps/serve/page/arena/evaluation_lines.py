"""The lines of an evaluation folder as types: answers and judgments as `apps.eval` writes them."""

from collections.abc import Mapping
from dataclasses import dataclass

from apps.common.files import parts
from apps.common.json_value import JsonObject, JsonValue

_TIES = ("C", "A=B")


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionLine:
    """One held-out question."""

    id: str
    category: str
    turns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgmentLine:
    """One call of the judge with what the parser read; "" or () where it read nothing."""

    question_id: str
    models: tuple[str, ...]
    """one, or two as asked for"""
    order: int
    """1: the two were displayed the other way round"""
    judge: str
    response_text: str
    status: str
    verdict: str = ""
    scores: tuple[float, ...] = ()

    @property
    def displayed(self) -> tuple[str, ...]:
        return self.models[::-1] if self.order == 1 else self.models

    def outcome(self) -> float | None:
        """Share of the win of `models[0]`; verdict and scores are in the displayed order."""
        if len(self.models) != 2 or self.status != "ok":
            return None
        if self.verdict:
            first = 0.5 if self.verdict in _TIES else float(self.verdict.startswith("A"))
        elif len(self.scores) == 2:
            first = (
                0.5 if self.scores[0] == self.scores[1] else float(self.scores[0] > self.scores[1])
            )
        else:
            return None
        return 1 - first if self.order == 1 else first

    def winner(self) -> str:
        """A model, "tie", or "" where there is no verdict."""
        outcome = self.outcome()
        if outcome is None or outcome == 0.5:
            return "" if outcome is None else "tie"
        return self.models[0] if outcome > 0.5 else self.models[1]


def read_questions(uri: str) -> list[QuestionLine]:
    return [
        QuestionLine(
            id=str(line["question_id"]),
            category=str(line.get("category") or ""),
            turns=_texts(line["turns"]),
        )
        for line in parts.records(uri)
    ]


def read_answers(uri: str) -> tuple[str, dict[str, tuple[str, ...]]]:
    """The model, and its texts by question id; ("", {}) of an empty file."""
    lines = parts.records(uri)
    answers = {str(line["question_id"]): _texts(line["turn_texts"]) for line in lines}
    return (str(lines[0]["model"]) if lines else ""), answers


def read_judgments(raw_uri: str, parsed_uri: str) -> list[JudgmentLine]:
    parsed = {str(line["key"]): line for line in parts.records(parsed_uri)}
    return [_judgment(line, parsed.get(str(line["key"]), {})) for line in parts.records(raw_uri)]


def _judgment(raw: JsonObject, parsed: Mapping[str, JsonValue]) -> JudgmentLine:
    return JudgmentLine(
        question_id=str(raw["question_id"]),
        models=_texts(raw["models"]),
        order=1 if raw["order"] == 1 else 0,
        judge=str(raw["judge"]),
        response_text=str(raw["response_text"]),
        status=str(parsed.get("status") or "unparsed"),
        verdict=str(parsed.get("verdict") or ""),
        scores=tuple(float(text) for text in _texts(parsed.get("scores") or [])),
    )


def _texts(value: JsonValue) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()
