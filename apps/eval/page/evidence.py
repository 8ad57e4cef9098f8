"""What lies under the figures: every question with its answers, judgments and explanations.

report.json holds it as it is, and the page's script shows it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from apps.eval.records.answer import Answer
from apps.eval.records.question import Question, is_correct
from apps.eval.scores.judgments import Judgment


def evidence(
    figures: Mapping[str, Any],
    questions: Sequence[Question],
    answers: Mapping[str, Mapping[str, Answer]],
    judgments: Sequence[Judgment],
) -> dict[str, Any]:
    """Plain data; `figures` are those of the report."""
    flagged = {name: model["suspicious"] for name, model in figures["models"].items()}
    return {
        "models": list(answers),
        "turns": max(len(question.turns) for question in questions),
        "questions": [
            {
                "id": question.question_id,
                "category": question.category,
                "turns": list(question.turns),
                "reference": list(question.reference),
            }
            for question in questions
        ],
        "answers": {
            name: {
                question.question_id: _answer(question, made[question.question_id], flagged[name])
                for question in questions
                if question.question_id in made
            }
            for name, made in answers.items()
        },
        "judgments": [_judgment(item) for item in judgments if item.kind == "contest"],
    }


def _answer(question: Question, answer: Answer, flagged: Mapping[str, list[str]]) -> dict[str, Any]:
    checks = [is_correct(question, text, i) for i, text in enumerate(answer.turn_texts)]
    known = [check for check in checks if check is not None]
    return {
        "turns": list(answer.turn_texts),
        "correct": all(known) if known else None,
        "flags": flagged.get(question.question_id, []),
    }


def _judgment(item: Judgment) -> dict[str, Any]:
    return {
        "q": item.question_id,
        "protocol": item.protocol,
        "models": list(item.models),
        "order": item.order,
        "repeat": item.repeat,
        "turn": item.turn,
        "judge": item.judge,
        "status": item.status,
        "scores": list(item.scores) if item.scores else None,
        "lead": item.lead,
        "text": item.text,
    }
