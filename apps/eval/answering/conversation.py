"""The turns of one question, put to one model, and the sampling that they are asked with.

Temperatures by category are MT-bench's: creative questions .7, factual ones .1, reasoning, math and
coding 0.
"""

import time

from apps.eval.calls.reply import part_thoughts, plain_reason
from apps.eval.calls.retry import Asker
from apps.eval.config import AnswerConfig
from apps.eval.records.answer import Answer
from apps.eval.records.question import Question

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


def sampling_and_system(config: AnswerConfig, category: str) -> dict[str, object]:
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


async def converse(asker: Asker, config: AnswerConfig, name: str, question: Question) -> Answer:
    """What `name` says to all turns; each sees its own earlier replies, without the thoughts."""
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
        if is_without_text(text, thoughts[-1], reasons[-1]):
            break
    return Answer(
        question_id=question.question_id,
        turn_texts=tuple(texts),
        thoughts=tuple(thoughts) if any(thoughts) else (),
        model=name,
        endpoint_model=endpoint_model,
        sampling=sampling_and_system(config, question.category),
        usage=usage,
        finish_reasons=tuple(reasons),
        created=round(time.time(), 3),
    )


def is_without_text(text: str, thought: str, reason: str) -> bool:
    """Whether a turn is no answer, but cut or filtered off, a thought alone or a tool's call.

    A model that ends by itself and says nothing has answered with nothing.
    """
    return not text.strip() and (reason != "stop" or bool(thought.strip()))
