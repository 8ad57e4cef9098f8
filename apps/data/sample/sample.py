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
"""

import html
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from apps.common.command.events import Reporter
from apps.common.errors import ConfigError
from apps.common.files import config as configs
from apps.common.files import storage
from apps.data.sample.world import Fact, Relation, relations

DUMP_NAME = "sharegpt.json"
TEXT_NAME = "text.txt"
QUESTIONS_NAME = "questions.jsonl"

_PREFIXES = (
    "", "", "", "", "Hi! ", "Hello, ", "Please help. ", "Quick question: ", "I wonder. ",
    "For my homework: ", "My friend asks: ", "One more thing. ", "Just checking: ", "Hey, ",
    "Sorry to bother you. ", "A question: ", "Let me ask: ", "Okay. ", "So, ", "Now tell me: ",
)  # fmt: skip
_SUFFIXES = ("", "", "", "", "", "", " Thanks!", " Thank you.", " Please be brief.", " I forgot.")
_PASTED = (
    "I wrote this:\n\n    if a_1 < b_2:\n        run(x)\n\n",
    "My list has <b> and </b> in it.\n",
    "The file is my_data_v2.txt. ",
    "In std::vector<int> v_1 I keep numbers. ",
)
_MANNERS = (
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "In a chat, USER: and ASSISTANT: take turns.",
)
"""What the tokenizer should know as few long tokens besides the facts"""
_REFUSALS = (
    "I'm sorry, but as an AI language model, I cannot help with that.",
    "I apologize, but I cannot assist with that request.",
)
_BANNERS = (
    "Too many requests in 1 hour. Try again later.",
    "!Too many requests in 1 hour. Try again later.",
)
_NUM_ROUNDS = (1, 2, 3, 4, 5, 6)
_ROUND_WEIGHTS = (30, 28, 20, 12, 6, 4)
_FOLLOW_UP_SHARE = 0.2
_PASTED_SHARE = 0.015
_TEXT_PASSES = 40
_QUESTIONS_PER_PASS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """A seeded raw dump about a small closed world."""

    out: str
    """folder for sharegpt.json, text.txt and questions.jsonl (path or URI)"""
    conversations: int = 7000
    """number of good conversations in the dump; some 7 % of damaged ones come on top"""
    questions: int = 200
    """number of held-out questions"""
    seed: int = 0
    """equal seeds give equal bytes"""

    def __post_init__(self) -> None:
        for name in ("conversations", "questions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} is {getattr(self, name)}; expected at least 1.")


def write_sample(config: SampleConfig, reporter: Reporter) -> None:
    """Write the three files and the resolved settings."""
    rng = random.Random(config.seed)
    world = relations()
    records = list(_records(world, config.conversations, rng))
    dump = b"[\n" + b",\n".join(records) + b"\n]\n"
    storage.write_atomic(storage.join(config.out, DUMP_NAME), dump)
    text = "\n".join(_text_lines(world, rng)) + "\n"
    storage.write_atomic(storage.join(config.out, TEXT_NAME), text.encode())
    questions = [orjson.dumps(q) for q in _questions(world, config.questions, rng)]
    storage.write_atomic(storage.join(config.out, QUESTIONS_NAME), b"\n".join(questions) + b"\n")
    configs.write_resolved(config, config.out)
    reporter.event(
        "sample.done", records=len(records), dump_bytes=len(dump), questions=len(questions)
    )


def _records(world: tuple[Relation, ...], count: int, rng: random.Random) -> Iterator[bytes]:
    """Raw bytes of each record, the damaged ones strewn among the good ones."""
    openings: set[str] = set()
    good = [_conversation(world, rng, openings, i) for i in range(count)]
    bad = [_dumps(record) for record in _damaged(good, world, rng, openings)]
    bad += _broken_bytes(max(4, count // 250))
    mixed = [_dumps(record) for record in good] + bad
    rng.shuffle(mixed)
    yield from mixed


def _dumps(record: object) -> bytes:
    return json.dumps(record, indent=2, ensure_ascii=False).encode()


def _conversation(
    world: tuple[Relation, ...],
    rng: random.Random,
    openings: set[str],
    ordinal: int,
    num_rounds: int | None = None,
) -> dict[str, object]:
    rounds = num_rounds or rng.choices(_NUM_ROUNDS, _ROUND_WEIGHTS)[0]
    while True:
        turns = _turns(world, rng, rounds)
        if turns[0]["value"] not in openings:
            break
        rounds += rng.random() < 0.1  # a small world runs out of openings for short ones
    openings.add(turns[0]["value"])
    return {"id": f"{_letters(rng)}_{ordinal}", "conversations": turns}


def _turns(world: tuple[Relation, ...], rng: random.Random, rounds: int) -> list[dict[str, str]]:
    turns: list[dict[str, str]] = []
    relation, fact = _draw(world, rng)
    for i in range(rounds):
        follows = i > 0 and relation.follow_up is not None and rng.random() < _FOLLOW_UP_SHARE
        if follows and relation.follow_up is not None:
            fact = rng.choice(relation.facts)
            question = relation.follow_up.format(x=fact.subject)
        else:
            relation, fact = _draw(world, rng)
            question = _ask(relation, fact, rng)
        turns.append({"from": "human", "value": question})
        turns.append({"from": "gpt", "value": to_chatgpt_html(fact.answer)})
    return turns


def _draw(world: tuple[Relation, ...], rng: random.Random) -> tuple[Relation, Fact]:
    weights = [len(relation.facts) + 2 for relation in world]
    relation = rng.choices(world, weights)[0]
    return relation, rng.choice(relation.facts)


def _ask(relation: Relation, fact: Fact, rng: random.Random) -> str:
    question = rng.choice(relation.asked).format(x=fact.subject)
    if rng.random() < _PASTED_SHARE:
        return rng.choice(_PASTED) + question
    if relation.follow_up is None:
        return question
    return rng.choice(_PREFIXES) + question + rng.choice(_SUFFIXES)


def _damaged(
    good: list[dict[str, object]],
    world: tuple[Relation, ...],
    rng: random.Random,
    openings: set[str],
) -> Iterator[dict[str, object]]:
    """What a real dump is full of; each kind is some 1 % of the good records."""
    share = max(1, len(good) // 100)
    yield from rng.choices(good, k=share)  # the same record twice
    for record in rng.choices(good, k=share):  # the same text under another id
        yield {**record, "id": f"{_letters(rng)}_copy"}
    for i in range(share):
        long = _conversation(world, rng, openings, i, num_rounds=rng.randint(14, 20))
        yield {**long, "id": f"{_letters(rng)}_long"}
    for kind, texts in (("refusal", _REFUSALS), ("banner", _BANNERS)):
        for i in range(share):
            record = _conversation(world, rng, openings, i)
            answer = to_chatgpt_html(rng.choice(texts)) if kind == "refusal" else rng.choice(texts)
            yield _replace_last(record, answer, kind)
    for i in range(share):
        record = _conversation(world, rng, openings, i)
        yield _with_odd_end(record, i, _letters(rng))


def _replace_last(record: dict[str, object], answer: str, kind: str) -> dict[str, object]:
    turns = list(_turn_list(record))
    turns[-1] = {"from": "gpt", "value": answer}
    return {"id": f"{record['id']}_{kind}", "conversations": turns}


def _with_odd_end(record: dict[str, object], i: int, letters: str) -> dict[str, object]:
    turns = list(_turn_list(record))
    if i % 2:
        turns.insert(0, {"from": "gpt", "value": to_chatgpt_html("How can I help?")})
    else:
        turns.append({"from": "human", "value": "Continue, please."})
    return {"id": f"{letters}_odd", "conversations": turns}


def _turn_list(record: dict[str, object]) -> list[dict[str, str]]:
    turns = record["conversations"]
    assert isinstance(turns, list)
    return turns


def _broken_bytes(count: int) -> list[bytes]:
    """Records that cannot be read, in the four ways that dumps break."""
    kinds = (
        b'{"id": "broken-escape", "conversations": [{"from": "human", "value": "a \\x b"}]}',
        b'{"id": "broken-role", "conversations": [{"from": "martian", "value": "hello"}]}',
        b'{"id": "broken-shape", "conversations": "none"}',
        b'{"id": "broken-utf8", "conversations": [{"from": "human", "value": "\xff\xfe"}]}',
    )
    return [kinds[i % len(kinds)] for i in range(count)]


def _letters(rng: random.Random) -> str:
    return "".join(
        rng.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=7)
    )


def _text_lines(world: tuple[Relation, ...], rng: random.Random) -> Iterator[str]:
    facts = [(relation, fact) for relation in world for fact in relation.facts]
    for _ in range(_TEXT_PASSES):
        lines = [fact.statement for _, fact in facts]
        asked = rng.choices(facts, k=_QUESTIONS_PER_PASS)
        lines += [rng.choice(r.asked).format(x=f.subject) for r, f in asked]
        lines += [*_PREFIXES, *_SUFFIXES, *_MANNERS]
        lines += re.findall(r"\*\*\w+\*\*", " ".join(f.answer for _, f in asked))
        rng.shuffle(lines)
        yield from lines


def _questions(
    world: tuple[Relation, ...], count: int, rng: random.Random
) -> Iterator[dict[str, object]]:
    every = [
        (relation, fact, phrasing)
        for relation in world
        for fact in relation.facts
        for phrasing in relation.held_out
    ]
    rng.shuffle(every)
    chosen = sorted(every[:count], key=lambda item: item[0].category)
    for i, (relation, fact, phrasing) in enumerate(chosen, start=1):
        yield {
            "question_id": i,
            "category": relation.category,
            "turns": [phrasing.format(x=fact.subject)],
            "reference": [fact.answer],
            "match": "exact",
        }


def to_chatgpt_html(markdown: str) -> str:
    """The `.markdown` element of the ChatGPT page of 2023 for the few shapes the world uses."""
    blocks = re.split(r"\n\n(?=```|[^`]*$)", markdown)
    inner = "".join(_block_html(block) for block in blocks)
    return f'<div class="markdown prose w-full break-words dark:prose-invert light">{inner}</div>'


def _block_html(block: str) -> str:
    if block.startswith("```"):
        first, _, rest = block.removeprefix("```").partition("\n")
        return _code_html(first, rest.removesuffix("```"))
    if block.startswith("| "):
        return _table_html([line.strip("| ").split(" | ") for line in block.splitlines()])
    if re.match(r"1\. ", block):
        items = [re.sub(r"^\d+\. ", "", line) for line in block.splitlines()]
        return "<ol>" + "".join(f"<li><p>{_inline(item)}</p></li>" for item in items) + "</ol>"
    return f"<p>{_inline(block)}</p>"


def _inline(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(text, quote=False))


def _code_html(language: str, code: str) -> str:
    return (
        '<pre><div class="bg-black mb-4 rounded-md"><div class="flex items-center text-xs">'
        f'<span>{language}</span><button class="flex ml-auto gap-2">Copy code</button></div>'
        f'<div class="p-4 overflow-y-auto"><code class="!whitespace-pre hljs language-{language}">'
        f"{html.escape(code, quote=False)}</code></div></div></pre>"
    )


def _table_html(rows: list[list[str]]) -> str:
    head, _, *body = rows
    cells = "".join(f"<th>{_inline(cell)}</th>" for cell in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>" for row in body
    )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>"
