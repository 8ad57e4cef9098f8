"""An evaluation folder for visitors: questions, answers, both orders of the judge, ratings.

Reads the files of the design's contracts "Answers" and "Judgments"; writes nothing.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from apps.common import ratings
from apps.common.errors import CriaError
from apps.common.files import storage
from apps.serve.page.render.markdown import blocks

logger = logging.getLogger("ray.serve")

_AGE_S = 60.0
_TIES = ("C", "A=B")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What a folder holds; empty where there is none."""

    questions: Sequence[Mapping[str, Any]] = ()
    answers: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """model -> question id -> line"""
    judgments: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """question id -> lines, with what the parser read"""
    ratings: Sequence[Mapping[str, Any]] = ()
    """Bradley-Terry from the judge, best first"""

    def overview(self) -> dict[str, Any]:
        return {
            "questions": [
                {
                    "id": str(question["question_id"]),
                    "category": str(question.get("category") or ""),
                    "text": str(question["turns"][0])[:300],
                }
                for question in self.questions
            ],
        }

    def question(self, question_id: str) -> dict[str, Any]:
        """One question with everything that was said about it; {} where it is unknown."""
        known = {str(question["question_id"]): question for question in self.questions}
        if question_id not in known:
            return {}
        answers = {
            model: [blocks(str(text)) for text in lines[question_id]["turn_texts"]]
            for model, lines in sorted(self.answers.items())
            if question_id in lines
        }
        return {
            "turns": [str(turn) for turn in known[question_id]["turns"]],
            "answers": answers,
            "judgments": [_shown(line) for line in self.judgments.get(question_id, ())],
        }


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
                except (CriaError, OSError, ValueError, KeyError):
                    logger.warning("%s could not be read as an evaluation", self._folder)
            return self._evaluation


def load(folder: str) -> Evaluation:
    """Raises NotFoundError or ValueError for a folder that is no evaluation."""
    questions = _lines(storage.join(folder, "questions.jsonl"))
    answers = {
        line["model"]: {str(one["question_id"]): one for one in lines}
        for uri in storage.glob(storage.join(folder, "answers", "*.jsonl"))
        if (lines := _lines(uri))
        for line in lines[:1]
    }
    judgments = _judgments(folder)
    return Evaluation(
        questions=questions, answers=answers, judgments=judgments, ratings=_ratings(judgments)
    )


def _ratings(judgments: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The orders of one question are one cluster."""
    records = [
        (line["models"][0], line["models"][1], outcome, question_id)
        for question_id, lines in judgments.items()
        for line in lines
        if (outcome := outcome_of(line)) is not None
    ]
    return [
        {
            "model": row.model,
            "rating": round(row.rating),
            "low": round(row.low),
            "high": round(row.high),
            "rank": row.rank,
        }
        for row in ratings.leaderboard(ratings.Battles.of(records))
    ]


def _judgments(folder: str) -> dict[str, list[dict[str, Any]]]:
    place = storage.join(folder, "judgments")
    parsed_uris = sorted(storage.glob(storage.join(place, "parsed-*.jsonl")))
    raw_uri = storage.join(place, "raw.jsonl")
    if not parsed_uris or not storage.exists(raw_uri):
        return {}
    parsed = {line["key"]: line for line in _lines(parsed_uris[-1])}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in _lines(raw_uri):
        found[str(line["question_id"])].append({**line, **parsed.get(line["key"], {})})
    return found


def outcome_of(line: Mapping[str, Any]) -> float | None:
    """Share of the win of `models[0]`; scores and verdict are in the order that was displayed."""
    if len(line["models"]) != 2 or line.get("status") != "ok":
        return None
    if verdict := line.get("verdict"):
        first = 0.5 if verdict in _TIES else float(verdict.startswith("A"))
    elif len(scores := line.get("scores") or ()) == 2:
        first = 0.5 if scores[0] == scores[1] else float(scores[0] > scores[1])
    else:
        return None
    return 1 - first if line["order"] == 1 else first


def _shown(line: Mapping[str, Any]) -> dict[str, Any]:
    models = list(line["models"])
    return {
        "models": models[::-1] if line["order"] == 1 else models,
        "judge": str(line["judge"]),
        "verdict": str(line.get("verdict") or line.get("scores") or line.get("status", "unparsed")),
        "html": blocks(str(line["response_text"])),
    }


def _lines(uri: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in storage.read_bytes(uri).splitlines() if line.strip()]
