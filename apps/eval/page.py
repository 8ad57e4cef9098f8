"""report.html: one file, no network, readable on a phone, in light and dark."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from apps.eval.answers import Answer
from apps.eval.judgments import Judgment
from apps.eval.questions import Question


def render(
    figures: Mapping[str, Any],
    questions: Sequence[Question],
    answers: Mapping[str, Mapping[str, Answer]],
    judgments: Sequence[Judgment],
) -> str:
    rows = "".join(
        f"<h3>{html.escape(q.turns[0])}</h3>"
        + "".join(
            f"<p><b>{html.escape(name)}</b> {html.escape(made[q.question_id].turn_texts[0])}</p>"
            for name, made in answers.items()
            if q.question_id in made
        )
        for q in questions
    )
    text = html.escape(json.dumps(figures, indent=2))
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(figures['title'])}</title>"
        f"<h1>{html.escape(figures['title'])}</h1><pre>{text}</pre>{rows}"
    )
