"""`answer`: puts every question to every model and keeps what they say, one line a question.

Models are asked at the same time, those of one account within its limits together. Writes
answers/<name>.jsonl (fsynced line by line) and questions.jsonl into the folder. Run again it asks
only what is unanswered. Temperatures by category are MT-bench's: creative questions .7,
factual ones .1, reasoning, math and coding 0.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from apps.common.command.events import Bar, Reporter
from apps.common.command.run_all import run_all
from apps.common.errors import CriaError, InputError
from apps.common.files import config as configs
from apps.common.files import lineage, parts, storage
from apps.eval.calls.client import Endpoint, connect
from apps.eval.calls.endpoints import named_endpoints, parse_endpoint, parse_named
from apps.eval.calls.failure import CallFailure
from apps.eval.calls.hold import Hold, hold_answers
from apps.eval.calls.reply import part_thoughts, plain_reason
from apps.eval.calls.retry import Asker, Gates
from apps.eval.config import AnswerConfig
from apps.eval.folder import questions_uri
from apps.eval.records.answer import (
    Answer,
    answers_uri,
    check_model_name,
    lineage_uri,
    read_answers,
)
from apps.eval.records.question import Question, dump_questions, load_questions, load_references

TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "generic": 0.7,
    "counterfactual": 0.7,
    "knowledge": 0.1,
    "common-sense": 0.1,
    "stem": 0.1,
    "humanities": 0.1,
    "fermi": 0.0,
    "coding": 0.0,
    "math": 0.0,
    "reasoning": 0.0,
    "extraction": 0.0,
}
OTHER_TEMPERATURE = 0.7
_FAILED = "$ERROR$"


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
    imported = {name: _read_import(uri, name, questions) for name, uri in imports}
    _keep_questions(config.out, questions)
    for name, record in made_by.items():
        storage.write_json(lineage_uri(config.out, name), record)
    configs.write_resolved(config, config.out, name="answer.yaml")
    for name, answers in imported.items():
        _import(config.out, name, answers, questions, reporter)
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


def _read_import(uri: str, name: str, questions: Sequence[Question]) -> dict[str, Answer]:
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


def _import(
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


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """One model's answers, while this run holds them."""

    uri: str
    hold: Hold

    def append(self, answer: Answer) -> None:
        """Raises InputError where another run has taken them over."""
        self.hold.check()
        parts.append(self.uri, answer.to_json())


@dataclass(slots=True)
class Unanswered:
    """What came in place of answers."""

    failures: list[str] = field(default_factory=list[str])
    empty: list[str] = field(default_factory=list[str])
    """why an answer has no text: length, content_filter, tool_calls or what else ended it"""
    refused: CallFailure | None = None
    """why the endpoint refuses every request"""

    @property
    def count(self) -> int:
        return len(self.failures) + len(self.empty)

    def sentence(self, contestant: Contestant) -> str | None:
        if self.refused:
            advice = self.refused.advice or (
                f"check the URL, the model's name {contestant.endpoint.model!r} and the key"
            )
            return f"{contestant.name}'s endpoint refuses requests ({self.refused}); {advice}"
        told: list[str] = []
        if self.failures:
            told.append(f"{len(self.failures)} found no response (last: {self.failures[-1]})")
        if cut := self.empty.count("length"):
            told.append(f"{cut} were cut off before any text: give --max-tokens more")
        if filtered := self.empty.count("content_filter"):
            told.append(f"{filtered} were stopped by a content filter")
        if others := [
            reason for reason in self.empty if reason not in ("length", "content_filter")
        ]:
            ends = ", ".join(sorted(set(others)))
            told.append(f"{len(others)} have no text, only thoughts or a tool's call ({ends})")
        return (
            f"{contestant.name} left {self.count} questions unanswered: {', '.join(told)}"
            if told
            else None
        )


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
    return lost.sentence(contestant)


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
        asked = _settings(config, question.category)
        if "system" not in made.sampling:  # an older line, which does not tell it
            del asked["system"]
        if made.sampling != asked:
            raise InputError(
                f"{contestant.name} answered question {question.question_id} with "
                f"{made.sampling}, not {asked}; use the earlier settings or another --out"
            )


def _settings(config: AnswerConfig, category: str) -> dict[str, object]:
    """All that an answer depends on beside its model, as its line keeps it."""
    return {**sampling(config, category), "system": config.system}


def sampling(config: AnswerConfig, category: str) -> dict[str, object]:
    """What is sent with every question of a category."""
    by_category = TEMPERATURES.get(category, OTHER_TEMPERATURE)
    settings: dict[str, object] = {
        "temperature": by_category if config.temperature is None else config.temperature,
        "top_p": config.top_p,
        "max_tokens": config.max_tokens,
    }
    return settings if config.seed is None else {**settings, "seed": config.seed}


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
        made = await _converse(asker, config, contestant, question)
    except CallFailure as failure:
        if failure.kind == "fatal":
            lost.refused = failure
        lost.failures.append(failure.sentence)
        return
    last_thought = made.thoughts[-1] if made.thoughts else ""
    if _is_without_text(made.turn_texts[-1], last_thought, made.finish_reasons[-1]):
        lost.empty.append(made.finish_reasons[-1])
        return
    await asyncio.to_thread(file.append, made)
    bar.advance(1, model=contestant.name, tokens=made.usage["completion_tokens"])


def _is_without_text(text: str, thought: str, reason: str) -> bool:
    """Whether a turn is no answer, but cut or filtered off, a thought alone or a tool's call.

    A model that ends by itself and says nothing has answered with nothing.
    """
    return not text.strip() and (reason != "stop" or bool(thought.strip()))


async def _converse(
    asker: Asker, config: AnswerConfig, contestant: Contestant, question: Question
) -> Answer:
    """All turns of a question; each sees the model's own earlier replies, without its thoughts."""
    settings, endpoint_model = sampling(config, question.category), ""
    messages = [{"role": "system", "content": config.system}] if config.system else []
    texts, thoughts, reasons = list[str](), list[str](), list[str]()
    usage = {"prompt_tokens": 0, "completion_tokens": 0}
    for turn in question.turns:
        messages.append({"role": "user", "content": turn})
        reply = await asker.ask(messages, settings)
        thought, text = part_thoughts("" if reply.was_filtered else reply.text)
        messages.append({"role": "assistant", "content": text})
        texts.append(text)
        thoughts.append(reply.thoughts or thought)
        reasons.append(plain_reason(reply.finish_reason))
        usage["prompt_tokens"] += reply.prompt_tokens or 0
        usage["completion_tokens"] += reply.completion_tokens or 0
        endpoint_model = reply.endpoint_model
        if _is_without_text(text, thoughts[-1], reasons[-1]):
            break
    return Answer(
        question_id=question.question_id,
        turn_texts=tuple(texts),
        thoughts=tuple(thoughts) if any(thoughts) else (),
        model=contestant.name,
        endpoint_model=endpoint_model,
        sampling=_settings(config, question.category),
        usage=usage,
        finish_reasons=tuple(reasons),
        created=round(time.time(), 3),
    )
