"""Reviews that others paid for, brought into an evaluation folder as vicuna-blog judgments.

    python -m apps.eval replay FOLDER --out eval/ && python -m apps.eval report eval/

FOLDER is the blog's layout: question.jsonl, prompt.jsonl, answer/answer_<model>.jsonl and
review/review_<baseline>_<model>.jsonl. The calls are those that `judge --protocol vicuna-blog
--prompt-file prompt.jsonl --against <model>` would make; every review becomes the stored response
of its call, at no cost. `report` then reads the texts, as `replay --mode reparsed` does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from apps.common import lineage, storage
from apps.common.errors import InputError, NotFoundError
from apps.common.events import Reporter
from apps.eval import journal
from apps.eval.answers import Answer, answers_uri, read_answers
from apps.eval.calls import Call
from apps.eval.config import JudgeConfig, ReplayConfig
from apps.eval.folder import questions_uri, write_plan
from apps.eval.manifest import prompts_digest
from apps.eval.plan import Plan, make_plan, parse_record
from apps.eval.questions import Question, dump_questions, load_questions
from apps.eval.replay import review_files

PROTOCOL = "vicuna-blog"


def import_reviews(config: ReplayConfig, reporter: Reporter) -> None:
    """Writes the evaluation folder `config.out` from the blog's layout in `config.folder`."""
    assert config.folder is not None and config.out is not None
    folder, out = config.folder, config.out
    if storage.exists(questions_uri(out)):
        raise InputError(f"{out} is an evaluation folder already; give a new --out to import into")
    questions = load_questions(storage.join(folder, "question.jsonl"))
    reviews = review_files(folder)
    names = sorted({name for pair in reviews for name in pair})
    answers = {name: _answers(folder, name, questions) for name in names}
    records, calls = _responses(config, questions, answers, reviews)
    storage.write_atomic(questions_uri(out), dump_questions(questions))
    for name, made in answers.items():
        storage.write_atomic(answers_uri(out, name), b"".join(a.to_json() for a in made.values()))
    storage.write_atomic(journal.raw_path(out), b"".join(orjson.dumps(r) + b"\n" for r in records))
    plan = Plan(calls=tuple(calls), unanswered=(), without_reference=())
    write_plan(_judging(config, names[0]), plan)
    journal.write_parsed(out, parse_record)
    _write_manifest(config, calls, reviews)
    reporter.event("replay.imported", reviews=len(records), models=len(answers), out=out)
    reporter.line(f"`report {out}` reads the reviews' texts, as --mode reparsed does.")


def _responses(
    config: ReplayConfig,
    questions: Sequence[Question],
    answers: Mapping[str, Mapping[str, Answer]],
    reviews: Mapping[tuple[str, str], str],
) -> tuple[list[dict[str, Any]], list[Call]]:
    """A raw.jsonl record for every review, beside the call that it answers."""
    records, calls = [], []
    for (first, second), uri in reviews.items():
        pair = {name: answers[name] for name in (first, second)}
        plan = make_plan(_judging(config, second), questions, pair)
        by_question = {call.question_id: call for call in plan.calls}
        for review in journal.read_lines(uri):
            call = by_question.get(str(review["question_id"]))
            if call is None:
                raise InputError(
                    f"{uri} reviews question {review['question_id']}, to which {first} or {second} "
                    "has no answer; complete answer/ first"
                )
            records.append(_record(call, review))
        calls += plan.calls
    return records, calls


def _judging(config: ReplayConfig, against: str) -> JudgeConfig:
    assert config.folder is not None and config.out is not None
    return JudgeConfig(
        dir=config.out,
        protocol=PROTOCOL,
        judge=(config.reviewer,),
        against=against,
        prompt_file=storage.join(config.folder, "prompt.jsonl"),
        self_checks=0,
        canaries=False,
    )


def _record(call: Call, review: Mapping[str, Any]) -> dict[str, Any]:
    return call.raw_record(
        response_text=review["text"],
        finish_reason="stop",
        usage={"prompt_tokens": 0, "completion_tokens": 0},
        usd=0.0,
        created=0.0,
        endpoint_model=str(review.get("reviewer_id", call.judge)),
        fingerprint=None,
        is_imported=True,
    )


def _answers(folder: str, name: str, questions: Sequence[Question]) -> dict[str, Answer]:
    uri = storage.join(folder, "answer", f"answer_{name}.jsonl")
    if not storage.exists(uri):
        raise NotFoundError(f"{folder} has reviews of {name} and no {uri}; expected its answers")
    return read_answers(uri, name, questions)


def _write_manifest(
    config: ReplayConfig, calls: Sequence[Call], reviews: Mapping[tuple[str, str], str]
) -> None:
    assert config.out is not None
    record = lineage.collect(
        inputs={" and ".join(pair): storage.digest_file(uri) for pair, uri in reviews.items()},
        config=config,
        protocol=PROTOCOL,
        judges=[config.reviewer],
        prompts_digest=prompts_digest(calls),
        prompts=f"{config.folder}/prompt.jsonl, as imported",
    )
    folder = journal.judgments_dir(config.out)
    storage.write_json(storage.join(folder, f"manifest-{PROTOCOL}.json"), record)
