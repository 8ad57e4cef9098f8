"""`answer`: puts every question to every model and keeps what they say, one line a question.

Writes answers/<name>.jsonl (fsynced line by line) and questions.jsonl into the folder. Run again
it asks only what is unanswered. Temperatures by category are MT-bench's: creative questions .7,
factual ones .1, reasoning, math and coding 0.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.common.command.events import Bar, Reporter
from apps.common.errors import CriaError, InputError
from apps.common.files import config as configs
from apps.common.files import lineage, storage
from apps.eval.calls.client import CallFailure, Endpoint, connect
from apps.eval.calls.endpoints import parse_endpoint, parse_named
from apps.eval.calls.retry import insist
from apps.eval.calls.run_all import run_all
from apps.eval.config import AnswerConfig
from apps.eval.folder import questions_uri
from apps.eval.records.answer import Answer, answers_uri, lineage_uri, read_answers
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    name: str
    endpoint: Endpoint


def answer(config: AnswerConfig, reporter: Reporter) -> None:
    questions = _questions(config)
    contestants = [
        Contestant(name=name, endpoint=endpoint)
        for name, endpoint in (
            parse_endpoint(text, "--model", config.timeout_s, config.api_key_env)
            for text in config.model
        )
    ]
    imports = [parse_named(text, "--answers") for text in config.answers]
    names = [c.name for c in contestants] + [name for name, _ in imports]
    if len(set(names)) < len(names):
        raise InputError(f"a model's name is given twice in {', '.join(names)}; names are files")
    made_by = _lineages(config, names)
    _keep_questions(config.out, questions)
    for name, record in made_by.items():
        storage.write_json(lineage_uri(config.out, name), record)
    configs.write_resolved(config, config.out, name="answer.yaml")
    for name, uri in imports:
        _import(config.out, name, uri, questions, reporter)
    unanswered = 0
    for contestant in contestants:
        unanswered += asyncio.run(_ask_all(config, contestant, questions, reporter))
    if unanswered:
        raise CriaError(
            f"{unanswered} questions found no answer; run the same command again to ask only those"
        )


def _lineages(config: AnswerConfig, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What made the models, for the report's manifest: their folders say it, endpoints do not."""
    found = {}
    for text in config.lineage:
        name, uri = parse_named(text, "--lineage")
        if name not in names:
            raise InputError(f"--lineage {text!r} names none of the contestants {', '.join(names)}")
        found[name] = lineage.read_from(uri)
    return found


def _questions(config: AnswerConfig) -> list[Question]:
    questions = load_questions(config.questions)
    if config.references is None:
        return questions
    from dataclasses import replace

    references = load_references(config.references)
    return [replace(q, reference=references.get(q.question_id, q.reference)) for q in questions]


def _keep_questions(out: str, questions: Sequence[Question]) -> None:
    uri, data = questions_uri(out), dump_questions(questions)
    if storage.exists(uri) and storage.read_bytes(uri) != data:
        raise InputError(
            f"{out} holds answers to other questions; give another --out for this questions file"
        )
    storage.write_atomic(uri, data)


def _import(
    out: str, name: str, uri: str, questions: Sequence[Question], reporter: Reporter
) -> None:
    found = read_answers(uri, name, questions)
    asked = [found[q.question_id] for q in questions if q.question_id in found]
    storage.write_atomic(answers_uri(out, name), b"".join(a.to_json() for a in asked))
    reporter.event("answer.imported", model=name, answers=len(asked), questions=len(questions))


async def _ask_all(
    config: AnswerConfig, contestant: Contestant, questions: Sequence[Question], reporter: Reporter
) -> int:
    """Asks what this model has not answered; returns how many questions stay unanswered."""
    uri = answers_uri(config.out, contestant.name)
    done = read_answers(uri, contestant.name, questions) if storage.exists(uri) else {}
    _refuse_other_sampling(config, contestant, questions, done)
    left = [question for question in questions if question.question_id not in done]
    if not left:
        reporter.event("answer.done", model=contestant.name, answered=len(done), asked=0)
        return 0
    width = asyncio.Semaphore(config.concurrency)
    failures: list[str] = []
    started = time.monotonic()
    async with connect(contestant.endpoint) as client:
        with reporter.progress(
            f"answer {contestant.name}", total=len(left), unit="questions"
        ) as bar:

            async def one(question: Question) -> None:
                async with width:
                    await _ask_one(client, config, contestant, question, uri, failures, bar)

            await run_all(one(question) for question in left)
    reporter.event(
        "answer.done",
        model=contestant.name,
        answered=len(done) + len(left) - len(failures),
        asked=len(left),
        unanswered=len(failures),
        seconds=round(time.monotonic() - started, 1),
        **({"last_error": failures[-1]} if failures else {}),
    )
    return len(failures)


def _refuse_other_sampling(
    config: AnswerConfig,
    contestant: Contestant,
    questions: Sequence[Question],
    done: Mapping[str, Answer],
) -> None:
    for question in questions:
        made = done.get(question.question_id)
        if made and made.sampling and made.sampling != sampling(config, question.category):
            raise InputError(
                f"{contestant.name} answered question {question.question_id} with "
                f"{made.sampling}, not {sampling(config, question.category)}; use the earlier "
                "settings or another --out"
            )


def sampling(config: AnswerConfig, category: str) -> dict[str, Any]:
    """What is sent with every question of a category."""
    by_category = TEMPERATURES.get(category, OTHER_TEMPERATURE)
    settings: dict[str, Any] = {
        "temperature": by_category if config.temperature is None else config.temperature,
        "top_p": config.top_p,
        "max_tokens": config.max_tokens,
    }
    return settings if config.seed is None else {**settings, "seed": config.seed}


async def _ask_one(
    client: Any,
    config: AnswerConfig,
    contestant: Contestant,
    question: Question,
    uri: str,
    failures: list[str],
    bar: Bar,
) -> None:
    try:
        made = await _converse(client, config, contestant, question, bar)
    except CallFailure as failure:
        if failure.kind == "fatal":
            raise CriaError(
                f"{contestant.name}'s endpoint refuses requests ({failure.sentence}); check the "
                f"URL, the model's name {contestant.endpoint.model!r} and the key"
            ) from None
        failures.append(failure.sentence)
        return
    await asyncio.to_thread(storage.append_line, uri, made.to_json())
    bar.advance(1, tokens=made.usage["completion_tokens"])


async def _converse(
    client: Any, config: AnswerConfig, contestant: Contestant, question: Question, bar: Bar
) -> Answer:
    """All turns of a question; each sees the model's own earlier replies."""
    settings = sampling(config, question.category)
    messages = [{"role": "system", "content": config.system}] if config.system else []
    texts, reasons = [], []
    usage = {"prompt_tokens": 0, "completion_tokens": 0}
    for turn in question.turns:
        messages.append({"role": "user", "content": turn})
        reply = await insist(
            client, contestant.endpoint.model, messages, settings, config.max_attempts, bar
        )
        messages.append({"role": "assistant", "content": reply.text})
        texts.append(reply.text)
        reasons.append(reply.finish_reason)
        usage["prompt_tokens"] += reply.prompt_tokens
        usage["completion_tokens"] += reply.completion_tokens
    return Answer(
        question_id=question.question_id,
        turn_texts=tuple(texts),
        model=contestant.name,
        endpoint_model=reply.endpoint_model,
        sampling=settings,
        usage=usage,
        finish_reasons=tuple(reasons),
        created=round(time.time(), 3),
    )
