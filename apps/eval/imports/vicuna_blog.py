"""Reviews in the blog's layout, read as vicuna-blog judgments.

    python -m apps.eval replay FOLDER --out eval/ && python -m apps.eval report eval/

FOLDER is the blog's layout: question.jsonl, prompt.jsonl, answer/answer_<model>.jsonl and
review/review_<baseline>_<model>.jsonl. The calls are those that `judge --protocol vicuna-blog
--prompt-file prompt.jsonl --against <model>` would make; every review becomes the stored response
of its call, at no cost. `report` then reads the texts, as `replay --mode reparsed` does.
MT-bench's layout is read by apps/eval/imports/mt_bench.py.
"""

import re
from collections.abc import Mapping, Sequence

from apps.common.command.events import Reporter
from apps.common.errors import InputError, NotFoundError
from apps.common.files import storage
from apps.eval.config import JudgeConfig, ReplayConfig
from apps.eval.imports import mt_bench
from apps.eval.imports.imported import Imported, refuse_existing, write_imported
from apps.eval.judging.call import Call
from apps.eval.judging.plan import make_plan
from apps.eval.records.answer import Answer, read_answers
from apps.eval.records.json_records import read_records
from apps.eval.records.question import Question, load_questions

PROTOCOL = "vicuna-blog"
_REVIEW_NAME = re.compile(r"review_(.+)_([^_]+)\.jsonl")


def import_reviews(config: ReplayConfig, reporter: Reporter) -> None:
    """Writes the evaluation folder `config.out` from the public layout in `config.folder`."""
    assert config.folder is not None and config.out is not None
    refuse_existing(config.out)
    is_mt_bench = mt_bench.is_layout(config.folder)
    imported = mt_bench.read(config.folder) if is_mt_bench else _read(config, config.folder)
    write_imported(imported, config, config.out)
    reporter.event(
        "replay.imported",
        reviews=len(imported.responses),
        models=len(imported.answers),
        out=config.out,
    )
    reporter.line(f"`report {config.out}` reads the judge's texts, not the scores stored beside.")


def review_files(folder: str) -> dict[tuple[str, str], str]:
    """{(baseline, model): file} of a folder in the blog's layout."""
    names = storage.list_dir(storage.join(folder, "review"))
    reviews = [(match, name) for name in names if (match := _REVIEW_NAME.fullmatch(name))]
    if not reviews:
        raise NotFoundError(
            f"{folder} has no review/review_<baseline>_<model>.jsonl; expected the layout of "
            "vicuna-blog-eval's eval/table, or MT-bench's, which is imported with --out"
        )
    return {(match[1], match[2]): storage.join(folder, "review", name) for match, name in reviews}


def _read(config: ReplayConfig, folder: str) -> Imported:
    questions = load_questions(storage.join(folder, "question.jsonl"))
    reviews = review_files(folder)
    names = sorted({name for pair in reviews for name in pair})
    answers = {name: _answers(folder, name, questions) for name in names}
    calls, responses = _judgments(config, questions, answers, reviews)
    return Imported(
        questions=questions,
        answers=answers,
        calls=calls,
        responses=responses,
        files={" and ".join(pair): uri for pair, uri in reviews.items()},
        prompts=f"{folder}/prompt.jsonl, as imported",
    )


def _judgments(
    config: ReplayConfig,
    questions: Sequence[Question],
    answers: Mapping[str, Mapping[str, Answer]],
    reviews: Mapping[tuple[str, str], str],
) -> tuple[list[Call], dict[str, tuple[str, str]]]:
    """The calls of all pairs, and the review of each by its key."""
    calls: list[Call] = []
    responses: dict[str, tuple[str, str]] = {}
    for (first, second), uri in reviews.items():
        pair = {name: answers[name] for name in (first, second)}
        plan = make_plan(_judging(config, second), questions, pair)
        by_question = {call.question_id: call for call in plan.calls}
        for review in read_records(uri):
            question_id = review.identity("question_id")
            call = by_question.get(question_id)
            if call is None:
                raise InputError(
                    f"{review.where} reviews question {question_id}, to which {first} or {second} "
                    "has no answer; complete answer/ first"
                )
            if call.key in responses:
                raise InputError(
                    f"{review.where} reviews question {question_id} a second time; leave one "
                    "review of each question and pair"
                )
            reviewer = str(review.fields.get("reviewer_id", call.judge))
            responses[call.key] = (review.text("text"), reviewer)
        calls += plan.calls
    return calls, responses


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


def _answers(folder: str, name: str, questions: Sequence[Question]) -> dict[str, Answer]:
    uri = storage.join(folder, "answer", f"answer_{name}.jsonl")
    if not storage.exists(uri):
        raise NotFoundError(f"{folder} has reviews of {name} and no {uri}; expected its answers")
    return read_answers(uri, name, questions)
