"""What lies under the figures: every question with its answers, judgments and explanations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from apps.eval.figures.answers import ModelRow
from apps.eval.records.answer import Answer
from apps.eval.records.question import Question, is_correct
from apps.eval.scores.judgments import Judgment


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownQuestion:
    id: str
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownAnswer:
    turns: tuple[str, ...]
    correct: bool | None
    flags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownJudgment:
    q: str
    protocol: str
    models: tuple[str, ...]
    order: int
    repeat: int
    turn: int
    judge: str
    status: str
    scores: tuple[float, ...] | None
    scale: tuple[float, float] | None
    """lowest and highest score there can be"""
    lead: float | None
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Everything that one can open on the page."""

    models: tuple[str, ...]
    turns: int
    """Most turns of a question."""
    questions: tuple[ShownQuestion, ...]
    answers: Mapping[str, Mapping[str, ShownAnswer]]
    """{model: {question_id: ...}}"""
    judgments: tuple[ShownJudgment, ...]


def evidence(
    rows: Mapping[str, ModelRow],
    questions: Sequence[Question],
    answers: Mapping[str, Mapping[str, Answer]],
    judgments: Sequence[Judgment],
) -> Evidence:
    return Evidence(
        models=tuple(answers),
        turns=max(len(question.turns) for question in questions),
        questions=tuple(
            ShownQuestion(
                id=question.question_id,
                category=question.category,
                turns=question.turns,
                reference=question.reference,
            )
            for question in questions
        ),
        answers={
            name: {
                question.question_id: _answer(question, made[question.question_id], rows[name])
                for question in questions
                if question.question_id in made
            }
            for name, made in answers.items()
        },
        judgments=tuple(_judgment(item) for item in judgments if item.kind == "contest"),
    )


def _answer(question: Question, answer: Answer, row: ModelRow) -> ShownAnswer:
    checks = [is_correct(question, text, i) for i, text in enumerate(answer.turn_texts)]
    known = [check for check in checks if check is not None]
    return ShownAnswer(
        turns=answer.turn_texts,
        correct=all(known) if known else None,
        flags=row.suspicious.get(question.question_id, ()),
    )


def _judgment(item: Judgment) -> ShownJudgment:
    return ShownJudgment(
        q=item.question_id,
        protocol=item.protocol,
        models=item.models,
        order=item.order,
        repeat=item.repeat,
        turn=item.turn,
        judge=item.judge,
        status=item.status,
        scores=item.scores or None,
        scale=item.scale if item.scores else None,
        lead=item.lead,
        text=item.text,
    )
