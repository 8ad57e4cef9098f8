"""`questions`: write out the built-in set, or let a GPT write a new one.

    python -m apps.eval questions write --out questions.jsonl
    python -m apps.eval questions generate --writer gpt-4o --per-category 10 --data clean/ \\
        --baseline vicuna=http://127.0.0.1:8000/v1 --out questions.jsonl

Generated questions are de-duplicated (Jaccard of their words). They are kept only if no baseline
answers them too well in the writer's own rating. Those that occur in the training data are dropped,
and the report of that search lies beside them. Coding and math get the writer's own solution as a
reference; read those before you trust them (13 of MT-bench's 30 were wrong: FastChat pull request
3158).
"""

import asyncio
import json
import os
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import cast

from apps.common.command.events import Bar, Reporter
from apps.common.command.run_all import run_all
from apps.common.errors import CriaError, InputError
from apps.common.files import config as configs
from apps.common.files import storage
from apps.common.text.words import words
from apps.eval.calls.client import Client, Endpoint, connect
from apps.eval.calls.endpoints import parse_endpoint
from apps.eval.calls.failure import CallFailure
from apps.eval.calls.lines import Message, Parameters
from apps.eval.calls.reply import Reply
from apps.eval.calls.retry import Asker, Gates
from apps.eval.config import QuestionsConfig
from apps.eval.contamination import jaccard, measure, training_texts
from apps.eval.judging.call import digest
from apps.eval.protocols.load import load_protocol
from apps.eval.protocols.parsing import parse
from apps.eval.protocols.wording import messages
from apps.eval.records.question import BUILT_IN, Question, dump_questions, load_questions

CATEGORIES = {
    "generic": "practical questions that people ask in daily life",
    "knowledge": "questions whose answer needs broad and exact knowledge",
    "roleplay": "requests to speak as a certain person in a certain situation",
    "common-sense": "questions about everyday situations that need unstated knowledge",
    "fermi": "estimates that have to be built up from assumptions",
    "counterfactual": "what would have happened, or would happen, if something were different",
    "coding": "programming tasks with a precise specification",
    "math": "mathematical problems with one definite answer",
    "writing": "writing tasks with demanding constraints",
}
_PROMPT = (
    "Write {count} questions for evaluating chat assistants, category '{category}': {about}. They "
    "must be hard enough to separate a good assistant from an excellent one, differ from each "
    "other in topic and form, be answerable without the internet or pictures, and contain no "
    "answer. Return only a JSON array of strings."
)
_SOLVE = (
    "Solve this carefully and check the result. Give a complete, correct and short reference "
    "solution, and nothing else.\n\n{question}"
)
WITH_REFERENCE = ("coding", "math")
SAME = 0.6
TRIES = 4


def questions(config: QuestionsConfig, reporter: Reporter) -> None:
    if config.action == "write":
        made = load_questions(BUILT_IN)
    else:
        made = asyncio.run(_generate(config, reporter))
        if not made:
            raise CriaError(
                f"no question of {config.writer} was new, hard and unseen; raise "
                "--max-baseline-score or name a stronger --writer"
            )
        configs.write_resolved(config, os.path.dirname(config.out) or ".", name="questions.yaml")
    storage.write_atomic(config.out, dump_questions(made))
    reporter.event("questions.done", questions=len(made), file=config.out)


async def _generate(config: QuestionsConfig, reporter: Reporter) -> list[Question]:
    unknown = set(config.category) - CATEGORIES.keys()
    if unknown:
        raise InputError(f"category {sorted(unknown)[0]!r} is unknown; expected {[*CATEGORIES]}")
    _, writer = _endpoint(config, config.writer, "--writer")
    baselines = [_endpoint(config, text, "--baseline")[1] for text in config.baseline]
    kept: dict[str, list[Question]] = {name: [] for name in config.category or CATEGORIES}
    async with AsyncExitStack() as stack:
        asked = [await stack.enter_async_context(connect(endpoint)) for endpoint in baselines]
        bar = stack.enter_context(
            reporter.progress("questions", total=config.per_category * len(kept), unit="questions")
        )
        models = _Models(config, await stack.enter_async_context(connect(writer)), asked, bar)

        async def one(category: str) -> None:
            kept[category] = await _category(config, models, category, reporter)

        await run_all(one(category) for category in kept)
    made = [question for questions in kept.values() for question in questions]
    return made if config.data is None else _unseen(config, made, reporter)


def _endpoint(config: QuestionsConfig, text: str, flag: str) -> tuple[str, Endpoint]:
    return parse_endpoint(text, flag, config.timeout_s, config.api_key_env, named={})


def _unseen(
    config: QuestionsConfig, made: Sequence[Question], reporter: Reporter
) -> list[Question]:
    """The questions that the training data does not hold; the report of the search beside them."""
    assert config.data is not None
    search = measure(made, training_texts(config.data, config.tokenizer))
    report = f"{config.out.removesuffix('.jsonl')}.contamination.json"
    storage.write_json(report, {"data": config.data, **search})
    seen = {row["question_id"] for row in search["contaminated"]}
    reporter.event("questions.contamination", dropped=len(seen), texts=search["texts"], file=report)
    return [question for question in made if question.question_id not in seen]


class _Models:
    """The writer and the baselines, with a bound on the requests in flight."""

    def __init__(
        self,
        config: QuestionsConfig,
        writer: Client,
        baselines: Sequence[Client],
        bar: Bar,
    ) -> None:
        self._config = config
        gates: Gates = {}
        self._writer, *self._baselines = (
            Asker(client, config.concurrency, config.max_attempts, bar, gates)
            for client in (writer, *baselines)
        )
        self.bar = bar

    async def write(self, prompt: str, temperature: float) -> Reply:
        asked = [{"role": "user", "content": prompt}]
        return await self._ask(self._writer, asked, temperature, 4096)

    async def is_hard(self, question: Question) -> bool:
        """Whether every baseline's answer is rated at most `--max-baseline-score`."""
        for baseline in self._baselines:
            asked = [{"role": "user", "content": question.turns[0]}]
            answer = await self._ask(baseline, asked, 0.7, 1024)
            if (await self._rating(question, answer.text)) > self._config.max_baseline_score:
                return False
        return True

    async def _rating(self, question: Question, answer: str) -> float:
        """1-10 in the writer's judgment; 0 where it gave none, which keeps the question."""
        nonce = digest(question.turns, answer)[:10]
        single = load_protocol("single")
        prompt = messages(single, question.category, question.turns, (), [[answer]], nonce)
        rated = await self._ask(self._writer, prompt, 0.0, 1024)
        scores = parse(rated.text, "rating", rated.finish_reason, nonce).scores
        return scores[0] if scores else 0.0

    async def _ask(
        self,
        asker: Asker,
        messages: Sequence[Message],
        temperature: float,
        max_tokens: int,
    ) -> Reply:
        settings: Parameters = {"temperature": temperature, "max_tokens": max_tokens}
        try:
            return await asker.ask(messages, settings)
        except CallFailure as failure:
            raise CriaError(
                f"{asker.client.endpoint.model} could not be asked ({failure.sentence}); mend what "
                "it names and run again"
            ) from None


async def _category(
    config: QuestionsConfig, models: _Models, category: str, reporter: Reporter
) -> list[Question]:
    """Asks until enough questions are new and hard, at most `TRIES` times."""
    kept: list[Question] = []
    texts: list[str] = []
    same = easy = 0
    for _ in range(TRIES):
        missing = config.per_category - len(kept)
        if missing <= 0:
            break
        fresh: list[Question] = []
        for text in await _written(models, category, 2 * missing):
            if any(jaccard(words(text), words(other)) > SAME for other in texts):
                same += 1
                continue
            texts.append(text)
            name = f"{category}-{len(texts)}"
            fresh.append(Question(question_id=name, category=category, turns=(text,)))
        verdicts = await asyncio.gather(*map(models.is_hard, fresh))
        hard = [question for question, is_hard in zip(fresh, verdicts, strict=True) if is_hard]
        easy += len(fresh) - len(hard)
        kept += hard[:missing]
        models.bar.advance(len(hard[:missing]))
    if category in WITH_REFERENCE:
        kept = list(await asyncio.gather(*(_referenced(models, question) for question in kept)))
    reporter.event("questions.category", category=category, kept=len(kept), same=same, easy=easy)
    return kept


async def _written(models: _Models, category: str, count: int) -> list[str]:
    prompt = _PROMPT.format(count=count, category=category, about=CATEGORIES[category])
    reply = await models.write(prompt, 1.0)
    array = re.search(r"\[.*\]", reply.text, re.DOTALL)
    try:
        texts = cast(list[object], json.loads(array[0])) if array else []
    except json.JSONDecodeError:
        return []
    return [text.strip() for text in texts if isinstance(text, str) and text.strip()]


async def _referenced(models: _Models, question: Question) -> Question:
    """The question with the writer's own solution, which the judge is shown."""
    reply = await models.write(_SOLVE.format(question=question.turns[0]), 0.0)
    return replace(question, reference=(reply.text.strip(),) if reply.text.strip() else ())
