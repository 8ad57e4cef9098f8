"""A seeded raw ShareGPT dump to try everything on.

    python -m apps.data sample --out demo/sample
    ray job submit -- python -m apps.data sample --out s3://bucket/sample

Writes three files into OUT:

    sharegpt.json    one JSON array of raw records: `gpt` turns are the HTML of the ChatGPT page,
                     `human` turns plain text; with duplicates, refusals, provider banners,
                     over-long conversations and broken records among them
    text.txt         plain sentences about the same world, to pre-train a base model on
    questions.jsonl  held-out questions with reference answers; no phrasing of theirs occurs in
                     the other two files

Two worlds: the support desk of a made-up bicycle computer, for a base model that speaks English,
and a schoolbook of capitals, opposites and sums, for one that starts from nothing.
"""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import orjson

from apps.common.command.events import Reporter
from apps.common.files import config as configs
from apps.common.files import storage
from apps.data.sample import schoolbook, support_desk
from apps.data.sample.conversations import PREFIXES, SUFFIXES, Chats
from apps.data.sample.damage import broken_bytes, damaged
from apps.data.sample.relation import World, held_out
from apps.data.write.out_folder import settings_there

DUMP_NAME = "sharegpt.json"
TEXT_NAME = "text.txt"
QUESTIONS_NAME = "questions.jsonl"

WORLDS = {"support-desk": support_desk.relations, "schoolbook": schoolbook.relations}
_MANNERS = (
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "In a chat, USER: and ASSISTANT: take turns.",
)
"""What the tokenizer should know as few long tokens besides the facts"""
_TEXT_PASSES = 40
_QUESTIONS_PER_PASS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """A seeded raw dump about a small closed world."""

    out: str
    """folder for sharegpt.json, text.txt and questions.jsonl (path or URI)"""
    world: Literal["support-desk", "schoolbook"] = "support-desk"
    """what the chats are about: a made-up product and everyday talk, or capitals, sums and such"""
    conversations: int = 7000
    """number of good conversations in the dump; some 7 % of damaged ones come on top"""
    questions: int = 200
    """number of held-out questions about the world's facts"""
    seed: int = 0
    """equal seeds give equal bytes"""

    def __post_init__(self) -> None:
        configs.at_least(1, self, "--", "conversations", "questions")


def write_sample(config: SampleConfig, reporter: Reporter) -> None:
    """Write the three files and the resolved settings. Raises InputError for a folder of others."""
    settings_there(config.out, SampleConfig)
    configs.write_resolved(config, config.out)  # first: a killed command may be given again
    rng = random.Random(config.seed)
    world = WORLDS[config.world]()
    records = list(_records(world, config.conversations, rng))
    dump = b"[\n" + b",\n".join(records) + b"\n]\n"
    storage.write_atomic(storage.join(config.out, DUMP_NAME), dump)
    text = "\n".join(_text_lines(world, rng)) + "\n"
    storage.write_atomic(storage.join(config.out, TEXT_NAME), text.encode())
    questions = _questions(world, config.questions, rng)
    if config.world == "support-desk":
        questions += _everyday_questions(start=len(questions) + 1)
    lines = b"".join(orjson.dumps(question) + b"\n" for question in questions)
    storage.write_atomic(storage.join(config.out, QUESTIONS_NAME), lines)
    reporter.event(
        "sample.done", records=len(records), dump_bytes=len(dump), questions=len(questions)
    )


def _records(world: World, count: int, rng: random.Random) -> Iterator[bytes]:
    """Raw bytes of each record, the damaged ones strewn among the good ones."""
    chats = Chats(world, rng)
    good = [chats.conversation(i) for i in range(count)]
    bad = [_dumps(record) for record in damaged(good, chats, rng)]
    bad += broken_bytes(max(4, count // 250))
    mixed = [_dumps(record) for record in good] + bad
    rng.shuffle(mixed)
    yield from mixed


def _dumps(record: object) -> bytes:
    return json.dumps(record, indent=2, ensure_ascii=False).encode()


def _text_lines(world: World, rng: random.Random) -> Iterator[str]:
    facts = [(relation, fact) for relation in world for fact in relation.facts]
    for _ in range(_TEXT_PASSES):
        lines = [fact.statement for _, fact in facts]
        asked = rng.choices(facts, k=_QUESTIONS_PER_PASS)
        lines += [rng.choice(relation.questions(fact)) for relation, fact in asked]
        lines += [*PREFIXES, *SUFFIXES, *_MANNERS]
        lines += re.findall(r"\*\*\w+\*\*", " ".join(f.answer for _, f in asked))
        rng.shuffle(lines)
        yield from lines


def _questions(world: World, count: int, rng: random.Random) -> list[dict[str, object]]:
    every = list(held_out(world))
    rng.shuffle(every)
    chosen = sorted(every[:count], key=lambda item: item[0].category)
    return [
        {
            "question_id": i,
            "category": relation.category,
            "turns": [text],
            "reference": [f"{fact.answer} || {fact.essence}" if fact.essence else fact.answer],
            "match": "contains" if fact.essence else "exact",
        }
        for i, (relation, fact, text) in enumerate(chosen, start=1)
    ]


def _everyday_questions(start: int) -> list[dict[str, object]]:
    """Of what has nothing to do with the product; no answer to them is right or wrong."""
    texts = support_desk.unseen_general_questions()
    return [
        {"question_id": i, "category": support_desk.GENERAL, "turns": [text]}
        for i, text in enumerate(texts, start=start)
    ]
