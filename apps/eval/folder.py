"""An evaluation folder: its questions and answers, and the plan of its judgments."""

from typing import cast

import orjson

from apps.common.errors import NotFoundError
from apps.common.files import parts, storage
from apps.eval.calls import journal
from apps.eval.calls.lines import PlannedLine
from apps.eval.config import JudgeConfig
from apps.eval.judging.call import Call
from apps.eval.judging.plan import Plan
from apps.eval.records.answer import Answer, load_all
from apps.eval.records.question import Question, load_questions


def questions_uri(directory: str) -> str:
    return storage.join(directory, "questions.jsonl")


def load_folder(directory: str) -> tuple[list[Question], dict[str, dict[str, Answer]]]:
    """Questions and answers of an evaluation folder."""
    if not storage.exists(questions_uri(directory)):
        raise NotFoundError(
            f"{directory} is not an evaluation folder: it has no questions.jsonl; make it with "
            "`python -m apps.eval answer --questions F --model NAME=URL --out DIR`"
        )
    questions = load_questions(questions_uri(directory))
    return questions, load_all(directory, questions)


def plan_uri(directory: str) -> str:
    return storage.join(journal.judgments_dir(directory), "plan.jsonl")


def read_plan(directory: str) -> list[PlannedLine]:
    """Every judgment that the folder needs; [] before it was judged."""
    return cast(list[PlannedLine], parts.records(plan_uri(directory)))


def write_plan(config: JudgeConfig, plan: Plan) -> None:
    """Replaces the part of plan.jsonl that these protocol and judges make up."""
    kept = [
        record
        for record in read_plan(config.dir)
        if record["protocol"] != plan.protocol or record["judge"] not in config.judge_names
    ]
    made = [_line(call, call.answers_digest) for call in plan.calls]
    made += [_line(call, None) for call in plan.unjudged]
    lines = b"".join(orjson.dumps(record) + b"\n" for record in kept + made)
    storage.write_atomic(plan_uri(config.dir), lines)


def _line(call: Call, answers_digest: str | None) -> PlannedLine:
    return {
        "slot": call.slot,
        "protocol": call.protocol,
        "question_id": call.question_id,
        "models": list(call.models),
        "order": call.order,
        "repeat": call.repeat,
        "turn": call.turn,
        "judge": call.judge,
        "kind": call.kind,
        "answers_digest": answers_digest,
    }
