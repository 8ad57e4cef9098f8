"""`answer`: puts every question to every model and keeps what they say, one line a question.

Models are asked at the same time, those of one account within its limits together. Writes
answers/<name>.jsonl (fsynced line by line) and questions.jsonl into the folder. Run again it asks
only what is unanswered.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from apps.common.command.events import Bar, Reporter
from apps.common.command.run_all import run_all
from apps.common.errors import CriaError, InputError
from apps.common.files import config as configs
from apps.common.files import lineage, parts, storage
from apps.eval.answering.conversation import converse, is_without_text, sampling_and_system
from apps.eval.answering.unanswered import Unanswered
from apps.eval.calls.client import Endpoint, connect
from apps.eval.calls.endpoints import named_endpoints, parse_endpoint, parse_named
from apps.eval.calls.failure import CallFailure
from apps.eval.calls.hold import Hold, hold_answers
from apps.eval.calls.retry import Asker, Gates
from apps.eval.config import AnswerConfig
from apps.eval.folder import questions_uri
from apps.eval.imports.answers import keep_import, read_import
from apps.eval.records.answer import (
    Answer,
    answers_uri,
    check_model_name,
    lineage_uri,
    read_answers,
)
from apps.eval.records.question import Question, dump_questions, load_questions, load_references


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    name: str
    endpoint: Endpoint


def answer(config: AnswerConfig, reporter: Reporter) -> None:
    questions = _questions(config)
    named = named_endpoints(config.endpoints)
    contestants = [
        Contestant(name=check_model_name(name), endpoint=endpoint)
        for name, endpoint in (
            parse_endpoint(text, "--model", config.timeout_s, config.api_key_env, named)
            for text in config.model
        )
    ]
    imports = [parse_named(text, "--answers") for text in config.answers]
    names = [c.name for c in contestants] + [name for name, _ in imports]
    if len(set(names)) < len(names):
        raise InputError(f"a model's name is given twice in {', '.join(names)}; names are files")
    made_by = _lineages(config, names)
    imported = {name: read_import(uri, name, questions) for name, uri in imports}
    _keep_questions(config.out, questions)
    for name, record in made_by.items():
        storage.write_json(lineage_uri(config.out, name), record)
    configs.write_resolved(config, config.out, name="answer.yaml")
    for name, answers in imported.items():
        keep_import(config.out, name, answers, questions, reporter)
    if not contestants:
        return
    if troubles := asyncio.run(_ask_all(config, contestants, questions, reporter)):
        raise CriaError(
            f"{'; '.join(troubles)}; run the same command again to ask only what has no answer"
        )


def _lineages(config: AnswerConfig, names: Sequence[str]) -> dict[str, dict[str, object]]:
    """What made the models, for the report's manifest: their folders say it, endpoints do not."""
    made_by: dict[str, dict[str, object]] = {}
    for text in config.lineage:
        name, uri = parse_named(text, "--lineage")
        if name not in names:
            raise InputError(f"--lineage {text!r} names none of the contestants {', '.join(names)}")
        made_by[name] = lineage.read_from(uri)
    return made_by


def _questions(config: AnswerConfig) -> list[Question]:
    questions = load_questions(config.questions)
    if config.references is None:
        return questions
    references = load_references(config.references)
    return [replace(q, reference=references.get(q.question_id, q.reference)) for q in questions]


def _keep_questions(out: str, questions: Sequence[Question]) -> None:
    uri, data = questions_uri(out), dump_questions(questions)
    if storage.exists(uri) and storage.read_bytes(uri) != data:
        raise InputError(
            f"{out} holds answers to other questions; give another --out for this questions file"
        )
    storage.write_atomic(uri, data)


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """One model's answers, while this run holds them."""

    uri: str
    hold: Hold

    def append(self, answer: Answer) -> None:
        """Raises InputError where another run has taken them over."""
        self.hold.check()
        parts.append(self.uri, answer.to_json())


async def _ask_all(
    config: AnswerConfig,
    contestants: Sequence[Contestant],
    questions: Sequence[Question],
    reporter: Reporter,
) -> list[str]:
    """Asks each model, all at a time, what it has not answered; a sentence of each that left some.

    Nothing is asked before the stored answers of all are seen to be of these settings, and ours.
    """
    with contextlib.ExitStack() as stack:
        files: dict[str, AnswerFile] = {}
        for one in contestants:
            uri = answers_uri(config.out, one.name)
            files[one.name] = AnswerFile(uri, hold_answers(uri, one.name))
            stack.callback(files[one.name].hold.release)
        return await _ask_each(config, contestants, files, questions, reporter)


async def _ask_each(
    config: AnswerConfig,
    contestants: Sequence[Contestant],
    files: Mapping[str, AnswerFile],
    questions: Sequence[Question],
    reporter: Reporter,
) -> list[str]:
    left = [(one, _unanswered(config, one, questions)) for one in contestants]
    gates: Gates = {}
    troubles: dict[str, str | None] = {}

    async def ask(one: Contestant, asked: Sequence[Question], bar: Bar) -> None:
        file = files[one.name]
        troubles[one.name] = await _ask_model(
            config, one, file, asked, questions, gates, bar, reporter
        )

    total = sum(len(asked) for _, asked in left)
    with reporter.progress("answer", total=total, unit="answers") as bar:
        await run_all(ask(one, asked, bar) for one, asked in left)
    return [trouble for one in contestants if (trouble := troubles[one.name])]


def _unanswered(
    config: AnswerConfig, contestant: Contestant, questions: Sequence[Question]
) -> list[Question]:
    done = read_answers(answers_uri(config.out, contestant.name), contestant.name, questions, True)
    _refuse_other_sampling(config, contestant, questions, done)
    return [question for question in questions if question.question_id not in done]


async def _ask_model(
    config: AnswerConfig,
    contestant: Contestant,
    file: AnswerFile,
    asked: Sequence[Question],
    questions: Sequence[Question],
    gates: Gates,
    bar: Bar,
    reporter: Reporter,
) -> str | None:
    """Asks one model `asked` of all `questions`; a sentence about what stays unanswered."""
    if not asked:
        reporter.event("answer.done", model=contestant.name, answered=len(questions), asked=0)
        return None
    lost = Unanswered()
    started = time.monotonic()
    async with connect(contestant.endpoint) as client:
        asker = Asker(client, config.concurrency, config.max_attempts, bar, gates)
        # Begun and not yet stored, so that a kill costs few: as many as the endpoint takes, and
        # as many on their way to the disk or bucket.
        places = asyncio.Semaphore(2 * asker.concurrency)

        async def one(question: Question) -> None:
            async with places:
                if lost.refused is None:
                    await _ask_one(asker, config, contestant, question, file, lost, bar)

        await run_all(one(question) for question in asked)
    for sentence in client.fit.learned:
        reporter.line(f"The endpoint of {contestant.name}: {sentence}.")
    made = read_answers(file.uri, contestant.name, questions, True)
    reporter.event(
        "answer.done",
        model=contestant.name,
        answered=len(made),
        asked=len(asked),
        unanswered=len(questions) - len(made),
        empty=sum(not any(answer.turn_texts) for answer in made.values()),
        seconds=round(time.monotonic() - started, 1),
        **({"last_error": lost.failures[-1]} if lost.failures else {}),
    )
    return lost.sentence(contestant.name, contestant.endpoint.model)


def _refuse_other_sampling(
    config: AnswerConfig,
    contestant: Contestant,
    questions: Sequence[Question],
    done: Mapping[str, Answer],
) -> None:
    for question in questions:
        made = done.get(question.question_id)
        if made is None or not made.sampling:
            continue
        asked = sampling_and_system(config, question.category)
        if "system" not in made.sampling:  # an older line, which does not tell it
            del asked["system"]
        if made.sampling != asked:
            raise InputError(
                f"{contestant.name} answered question {question.question_id} with "
                f"{made.sampling}, not {asked}; use the earlier settings or another --out"
            )


async def _ask_one(
    asker: Asker,
    config: AnswerConfig,
    contestant: Contestant,
    question: Question,
    file: AnswerFile,
    lost: Unanswered,
    bar: Bar,
) -> None:
    try:
        made = await converse(asker, config, contestant.name, question)
    except CallFailure as failure:
        if failure.kind == "fatal":
            lost.refused = failure
        lost.failures.append(failure.sentence)
        return
    last_thought = made.thoughts[-1] if made.thoughts else ""
    if is_without_text(made.turn_texts[-1], last_thought, made.finish_reasons[-1]):
        lost.empty.append(made.finish_reasons[-1])
        return
    await asyncio.to_thread(file.append, made)
    bar.advance(1, model=contestant.name, tokens=made.usage["completion_tokens"])
