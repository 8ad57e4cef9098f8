"""Reviews in the blog's layout, read as vicuna-blog judgments.

    python -m apps.eval replay FOLDER --out eval/ && python -m apps.eval report eval/

FOLDER is the blog's layout: question.jsonl, prompt.jsonl, answer/answer_<model>.jsonl and
review/review_<baseline>_<model>.jsonl. The calls are those that `judge --protocol vicuna-blog
--prompt-file prompt.jsonl --against <model>` would make; every review becomes the stored response
of its call, at no cost. `report` then reads the texts, as `replay --mode reparsed` does.
MT-bench's layout is read by apps/eval/mt_bench.py.
"""

from collections.abc import Mapping, Sequence

from apps.common import storage
from apps.common.errors import InputError, NotFoundError
from apps.common.events import Reporter
from apps.eval import journal, mt_bench
from apps.eval.answers import Answer, read_answers
from apps.eval.calls import Call
from apps.eval.config import JudgeConfig, ReplayConfig
from apps.eval.imports import Imported, refuse_existing, write_imported
from apps.eval.plan import make_plan
from apps.eval.questions import Question, load_questions
from apps.eval.replay import review_files

PROTOCOL = "vicuna-blog"


def import_reviews(config: ReplayConfig, reporter: Reporter) -> None:
    """Writes the evaluation folder `config.out` from the public layout in `config.folder`."""
    assert config.folder is not None and config.out is not None
    refuse_existing(config.out)
    is_mt_bench = mt_bench.is_layout(config.folder)
    found = mt_bench.read(config.folder) if is_mt_bench else _read(config, config.folder)
    write_imported(found, config, config.out)
    reporter.event(
        "replay.imported", reviews=len(found.responses), models=len(found.answers), out=config.out
    )
    reporter.line(f"`report {config.out}` reads the judge's texts, not the scores stored beside.")


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
        for review in journal.read_lines(uri):
            call = by_question.get(str(review["question_id"]))
            if call is None:
                raise InputError(
                    f"{uri} reviews question {review['question_id']}, to which {first} or {second} "
                    "has no answer; complete answer/ first"
                )
            responses[call.key] = (review["text"], str(review.get("reviewer_id", call.judge)))
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
