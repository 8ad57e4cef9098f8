"""An evaluation folder for visitors: questions, answers, both orders of the judge, ratings.

Reads questions.jsonl, answers/ and judgments/ as `apps.eval` writes them; writes nothing.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from apps.common import ratings
from apps.common.errors import CriaError, NotFoundError
from apps.common.files import parts, storage
from apps.serve.page.arena.evaluation_lines import (
    JudgmentLine,
    QuestionLine,
    read_answers,
    read_judgments,
    read_questions,
)
from apps.serve.page.arena.style import IntervalRating
from apps.serve.page.render.markdown import blocks

logger = logging.getLogger("ray.serve")

_AGE_S = 60.0
_MAX_LISTED_CHARS = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What a folder holds; empty where there is none."""

    questions: Sequence[QuestionLine] = ()
    answers: Mapping[str, Mapping[str, tuple[str, ...]]] = field(
        default_factory=dict[str, Mapping[str, tuple[str, ...]]]
    )
    """model -> question id -> text of each turn"""
    judgments: Mapping[str, Sequence[JudgmentLine]] = field(
        default_factory=dict[str, Sequence[JudgmentLine]]
    )
    """question id -> calls of the judge"""
    ratings: Sequence[IntervalRating] = ()
    """Bradley-Terry from the judge, best first"""

    def overview(self) -> dict[str, object]:
        """`won_by` of a question: models and "tie", as the judge had it; two where it wavered."""
        return {
            "models": sorted(self.answers),
            "questions": [
                {
                    "id": question.id,
                    "category": question.category,
                    "text": question.turns[0][:_MAX_LISTED_CHARS],
                    "won_by": sorted({line.winner() for line in self._judged(question.id)} - {""}),
                }
                for question in self.questions
            ],
        }

    def question(self, question_id: str) -> dict[str, object]:
        """One question with everything that was said about it; {} where it is unknown."""
        known = {question.id: question for question in self.questions}
        if question_id not in known:
            return {}
        return {
            "turns": known[question_id].turns,
            "answers": {
                model: [blocks(text) for text in texts[question_id]]
                for model, texts in sorted(self.answers.items())
                if question_id in texts
            },
            "judgments": [_shown(line) for line in self._judged(question_id)],
        }

    def _judged(self, question_id: str) -> Sequence[JudgmentLine]:
        return self.judgments.get(question_id, ())


class Shelf:
    """The folder that visitors may read, loaded when somebody opens it, at most once a minute."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._loaded_s = float("-inf")
        self._evaluation = Evaluation()
        self._lock = threading.Lock()

    def evaluation(self) -> Evaluation:
        """Empty while the folder is not there yet, or is being written."""
        with self._lock:
            if self._folder and time.monotonic() - self._loaded_s > _AGE_S:
                self._loaded_s = time.monotonic()
                try:
                    self._evaluation = load(self._folder)
                except (CriaError, OSError, ValueError, KeyError, IndexError):
                    logger.warning("%s could not be read as an evaluation", self._folder)
            return self._evaluation


def load(folder: str) -> Evaluation:
    """Raises NotFoundError or ValueError for a folder that is no evaluation."""
    questions = storage.join(folder, "questions.jsonl")
    if not storage.exists(questions):
        raise NotFoundError(f"{questions} does not exist")
    answers = storage.join(folder, "answers")
    names = [name for name in parts.names(answers) if name.endswith(".jsonl")]
    files = [storage.join(answers, name) for name in names]
    judgments = _judgments(folder)
    return Evaluation(
        questions=read_questions(questions),
        answers={model: answers for model, answers in map(read_answers, files) if model},
        judgments=judgments,
        ratings=_ratings(judgments),
    )


def _ratings(judgments: Mapping[str, Sequence[JudgmentLine]]) -> list[IntervalRating]:
    """The orders of one question are one cluster."""
    records = [
        (line.models[0], line.models[1], outcome, question_id)
        for question_id, lines in judgments.items()
        for line in lines
        if (outcome := line.outcome()) is not None
    ]
    return [
        IntervalRating(
            rank=row.rank,
            model=row.model,
            rating=round(row.rating),
            low=round(row.low),
            high=round(row.high),
        )
        for row in ratings.leaderboard(ratings.Battles.of(records))
    ]


def _judgments(folder: str) -> dict[str, Sequence[JudgmentLine]]:
    place = storage.join(folder, "judgments")
    parsed_uris = sorted(storage.glob(storage.join(place, "parsed-*.jsonl")))
    raw_uri = storage.join(place, "raw.jsonl")
    if not parsed_uris:
        return {}
    by_question: dict[str, list[JudgmentLine]] = defaultdict(list)
    for line in read_judgments(raw_uri, parsed_uris[-1]):
        by_question[line.question_id].append(line)
    return {question_id: tuple(lines) for question_id, lines in by_question.items()}


def _shown(line: JudgmentLine) -> dict[str, object]:
    said = line.verdict or ", ".join(f"{score:g}" for score in line.scores) or line.status
    return {
        "models": line.displayed,
        "judge": line.judge,
        "verdict": said,
        "winner": line.winner(),
        "html": blocks(line.response_text),
    }
