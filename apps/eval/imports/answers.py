"""Answers that were made elsewhere, read from the layouts of other tools and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from apps.common.command.events import Reporter
from apps.common.errors import InputError
from apps.common.files import parts
from apps.eval.calls.reply import part_thoughts
from apps.eval.records.answer import Answer, answers_uri, read_answers
from apps.eval.records.question import Question

_FAILED = "$ERROR$"


def read_import(uri: str, name: str, questions: Sequence[Question]) -> dict[str, Answer]:
    answers = read_answers(uri, name, questions)
    if not answers:
        raise InputError(f"{uri} holds no answers; expected one JSON object a line")
    if answers.keys().isdisjoint(q.question_id for q in questions):
        raise InputError(
            f"{uri} answers none of the questions: it has question_id {min(answers)!r} and the "
            f"questions have {questions[0].question_id!r}"
        )
    for question_id, answer in answers.items():
        if _FAILED in answer.turn_texts:
            raise InputError(
                f"{uri} answers question {question_id} with {_FAILED!r}, which FastChat writes "
                "where the model could not be asked; leave the line out: the question then counts "
                "as unanswered"
            )
    return {question_id: _parted(answer) for question_id, answer in answers.items()}


def _parted(answer: Answer) -> Answer:
    """Thoughts in the text of an imported answer apart, as those that are asked for here."""
    parted = [part_thoughts(text) for text in answer.turn_texts]
    beside = (*answer.thoughts, *("",) * len(parted))
    thoughts = tuple(own or inner for own, (inner, _) in zip(beside, parted, strict=False))
    texts = tuple(text for _, text in parted)
    return replace(answer, turn_texts=texts, thoughts=thoughts if any(thoughts) else ())


def keep_import(
    out: str,
    name: str,
    answers: Mapping[str, Answer],
    questions: Sequence[Question],
    reporter: Reporter,
) -> None:
    asked = [answers[q.question_id] for q in questions if q.question_id in answers]
    others = answers.keys() - {q.question_id for q in questions}
    parts.replace(answers_uri(out, name), b"".join(a.to_json() for a in asked))
    reporter.event(
        "answer.imported",
        model=name,
        answers=len(asked),
        questions=len(questions),
        **({"to_other_questions": len(others)} if others else {}),
    )
    if others:
        reporter.line(
            f"{len(others)} answers of {name} are left out: no question has their question_id, "
            f"such as {min(others)!r}."
        )
