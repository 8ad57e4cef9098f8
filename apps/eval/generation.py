"""`questions`: write out the built-in set, or let a GPT write a new one.

    python -m apps.eval questions write --out questions.jsonl
    python -m apps.eval questions generate --writer gpt-4o --per-category 10 --data clean/ \\
        --baseline vicuna=http://127.0.0.1:8000/v1 --out questions.jsonl

Generated questions are de-duplicated (Jaccard of their words), kept only if no baseline answers
them too well in the writer's own rating, and dropped if they occur in the training data.
"""

import asyncio
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from apps.common import config as configs
from apps.common import storage
from apps.common.errors import CriaError, InputError
from apps.common.events import Reporter
from apps.eval.calling import run_all
from apps.eval.client import CallFailure, Endpoint, complete, connect, openai_endpoint
from apps.eval.config import QuestionsConfig
from apps.eval.contamination import measure, training_texts
from apps.eval.endpoints import parse_endpoint
from apps.eval.parsing import parse
from apps.eval.protocols import single_messages
from apps.eval.questions import BUILT_IN, Question, dump_questions, load_questions

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
SAME = 0.6
TRIES = 4


def questions(config: QuestionsConfig, reporter: Reporter) -> None:
    if config.action == "write":
        made = load_questions(BUILT_IN)
    else:
        made = asyncio.run(_generate(config, reporter))
        configs.write_resolved(config, os.path.dirname(config.out) or ".", name="questions.yaml")
    storage.write_atomic(config.out, dump_questions(made))
    reporter.event("questions.done", questions=len(made), file=config.out)


async def _generate(config: QuestionsConfig, reporter: Reporter) -> list[Question]:
    unknown = set(config.category) - CATEGORIES.keys()
    if unknown:
        raise InputError(f"category {sorted(unknown)[0]!r} is unknown; expected {[*CATEGORIES]}")
    writer = openai_endpoint(config.writer, config.timeout_s)
    baselines = [parse_endpoint(text, "--baseline", config.timeout_s) for text in config.baseline]
    kept: dict[str, list[Question]] = {name: [] for name in config.category or CATEGORIES}

    async def one(category: str) -> None:
        async with connect(writer) as client:
            kept[category] = await _category(config, client, category, baselines, reporter)

    await run_all(one(category) for category in kept)
    made = [question for found in kept.values() for question in found]
    if config.data is None:
        return made
    found = measure(made, training_texts(config.data, config.tokenizer))
    seen = {row["question_id"] for row in found["contaminated"]}
    reporter.event("questions.contamination", dropped=len(seen), texts=found["texts"])
    return [question for question in made if question.question_id not in seen]


async def _category(
    config: QuestionsConfig,
    client: Any,
    category: str,
    baselines: Sequence[tuple[str, Endpoint]],
    reporter: Reporter,
) -> list[Question]:
    """Asks until enough questions are new and hard, at most `TRIES` times."""
    kept: list[Question] = []
    texts: list[str] = []
    same = easy = 0
    for _ in range(TRIES):
        missing = config.per_category - len(kept)
        if missing <= 0:
            break
        for text in await _written(client, config.writer, category, 2 * missing):
            if any(_similarity(text, other) > SAME for other in texts):
                same += 1
                continue
            texts.append(text)
            question = Question(
                question_id=f"{category}-{len(texts)}", category=category, turns=(text,)
            )
            if await _is_hard(config, client, question, baselines):
                kept.append(question)
            else:
                easy += 1
            if len(kept) == config.per_category:
                break
    reporter.event("questions.category", category=category, kept=len(kept), same=same, easy=easy)
    return kept


async def _written(client: Any, model: str, category: str, count: int) -> list[str]:
    prompt = _PROMPT.format(count=count, category=category, about=CATEGORIES[category])
    try:
        reply = await complete(
            client,
            model,
            [{"role": "user", "content": prompt}],
            {"temperature": 1.0, "max_tokens": 4096},
        )
    except CallFailure as failure:
        raise CriaError(f"{model} could not write questions: {failure.sentence}") from None
    found = re.search(r"\[.*\]", reply.text, re.DOTALL)
    try:
        texts = json.loads(found[0]) if found else []
    except json.JSONDecodeError:
        return []
    return [text.strip() for text in texts if isinstance(text, str) and text.strip()]


async def _is_hard(
    config: QuestionsConfig,
    client: Any,
    question: Question,
    baselines: Sequence[tuple[str, Endpoint]],
) -> bool:
    """Whether every baseline's answer is rated at most `--max-baseline-score` by the writer."""
    for _, endpoint in baselines:
        async with connect(endpoint) as asked:
            messages: list[Mapping[str, str]] = [{"role": "user", "content": question.turns[0]}]
            settings = {"temperature": 0.7, "max_tokens": 1024}
            try:
                answer = await complete(asked, endpoint.model, [*map(dict, messages)], settings)
                nonce = "rating"
                prompt = single_messages(question.turns, (), (answer.text,), nonce)
                rated = await complete(
                    client, config.writer, prompt, {"temperature": 0.0, "max_tokens": 1024}
                )
            except CallFailure as failure:
                raise CriaError(f"a baseline could not be asked: {failure.sentence}") from None
        scores = parse(rated.text, "rating", rated.finish_reason, nonce).scores
        if scores and scores[0] > config.max_baseline_score:
            return False
    return True


def _similarity(first: str, second: str) -> float:
    ours, theirs = (set(re.findall(r"\w+", text.casefold())) for text in (first, second))
    return len(ours & theirs) / max(1, len(ours | theirs))
