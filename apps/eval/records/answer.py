"""Answers: what each contestant said, whether asked by us or handed in as a file.

A chatbot without an endpoint competes with a file of its answers. Read are these layouts:

    ours                         answers/<model>.jsonl
    FastChat's, the blog's       {question_id, text, model_id}
    MT-bench's, Arena-Hard's     {question_id, model_id, choices: [{turns}]} or {uid, messages}
    OpenAI's                     {question_id, messages}
    AlpacaEval's                 {instruction, output, generator}, PandaLM's with `input`
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import orjson

from apps.common.errors import InputError
from apps.common.files import parts, storage
from apps.eval.records.json_records import Record, read_records
from apps.eval.records.question import Question

ANSWERS_DIR = "answers"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    question_id: str
    turn_texts: tuple[str, ...]
    model: str
    endpoint_model: str = ""
    sampling: dict[str, object] = field(default_factory=dict[str, object])
    usage: dict[str, int] = field(
        default_factory=lambda: {"prompt_tokens": 0, "completion_tokens": 0}
    )
    finish_reasons: tuple[str, ...] = ()
    thoughts: tuple[str, ...] = ()
    """what a reasoning model thought before each turn's answer; not judged unless asked"""
    created: float = 0.0
    """Seconds since 1970; 0 for imported answers."""

    @property
    def num_chars(self) -> int:
        return sum(map(len, self.turn_texts))

    def to_json(self) -> bytes:
        record = asdict(self)
        if not self.thoughts:
            del record["thoughts"]
        return orjson.dumps(record) + b"\n"


def answers_uri(directory: str, model: str) -> str:
    return storage.join(directory, ANSWERS_DIR, f"{model}.jsonl")


def lineage_uri(directory: str, model: str) -> str:
    """Where the lineage of a contestant is kept."""
    return storage.join(directory, ANSWERS_DIR, f"{model}.lineage.json")


def check_model_name(name: str) -> str:
    """A model's name is a file name: letters, digits, dot, dash, underscore."""
    if not name or name.startswith(".") or not all(c.isalnum() or c in "._-" for c in name):
        raise InputError(
            f"{name!r} cannot name a model: expected letters, digits, dots, dashes or underscores, "
            "as in --model tuned=http://127.0.0.1:8000/v1#endpoint-name"
        )
    return name


def read_answers(
    uri: str, model: str, questions: Sequence[Question], is_own: bool = False
) -> dict[str, Answer]:
    """Answers by question id, of a file in any known layout.

    A file that answers a question twice is refused. In one that we write (`is_own`) the later line
    counts, and a line that its writer was killed over is passed over.
    """
    by_prompt = {question.turns[0]: question.question_id for question in questions}
    openings = Counter(_opening(question.turns[0]) for question in questions)
    num_turns = {question.question_id: len(question.turns) for question in questions}
    answers: dict[str, Answer] = {}
    for record in read_records(uri, is_own):
        answer = _answer(record, model, by_prompt, openings)
        if answer.question_id in answers and not is_own:
            raise InputError(f"{record.where} answers question {answer.question_id} a second time")
        if len(answer.turn_texts) > num_turns.get(answer.question_id, len(answer.turn_texts)):
            raise InputError(
                f"{record.where} has {len(answer.turn_texts)} turns and question "
                f"{answer.question_id} has {num_turns[answer.question_id]}"
            )
        answers[answer.question_id] = answer
    return answers


def load_all(directory: str, questions: Sequence[Question]) -> dict[str, dict[str, Answer]]:
    """All contestants of an evaluation folder, {model: {question_id: Answer}}, by name."""
    folder = storage.join(directory, ANSWERS_DIR)
    names = [name for name in parts.names(folder) if name.endswith(".jsonl")]
    models = {name.removesuffix(".jsonl"): storage.join(folder, name) for name in names}
    return {model: read_answers(uri, model, questions, True) for model, uri in models.items()}


def _opening(prompt: str) -> str:
    """The first paragraph, which an instruction shares with all that its `input` follows."""
    return prompt.partition("\n\n")[0]


def _answer(
    record: Record, model: str, by_prompt: Mapping[str, str], openings: Mapping[str, int]
) -> Answer:
    fields, thoughts = record.fields, ()
    if "turn_texts" in fields:
        return _own(record, model)
    if "instruction" in fields and "output" in fields:
        question_id = by_prompt.get(record.instruction())
        bare = record.text("instruction")
        if question_id is None and openings.get(_opening(bare)) == 1:
            question_id = by_prompt.get(bare)  # of one that was stored without its `input`
        if question_id is None:
            raise record.refused("instruction", "one of the questions")
        turns: tuple[str, ...] = (record.text("output"),)
    elif "messages" in fields:
        question_id, turns = _identity(record), record.said_by("assistant")
        thoughts = record.thought_by("assistant")
    elif "choices" in fields:
        question_id, turns = _identity(record), record.choice()
    elif "text" in fields:
        question_id, turns = _identity(record), (record.text("text"),)
    else:
        raise InputError(
            f"{record.where} holds no answer; expected turn_texts, text, choices[0].turns, "
            "messages, or instruction with output"
        )
    maker = fields.get("model_id", fields.get("generator", ""))
    return Answer(
        question_id=question_id,
        turn_texts=turns,
        model=model,
        thoughts=thoughts,
        endpoint_model=maker if isinstance(maker, str) else "",
    )


def _identity(record: Record) -> str:
    return record.identity("uid" if "uid" in record.fields else "question_id")


def _own(record: Record, model: str) -> Answer:
    """A line as `to_json` writes it; fields of others are left out."""
    fields = record.fields
    usage, sampling, created = (
        fields.get("usage") or {},
        fields.get("sampling") or {},
        fields.get("created", 0.0),
    )
    if not isinstance(sampling, dict):
        raise record.refused("sampling", "an object of settings")
    if isinstance(created, bool) or not isinstance(created, int | float):
        raise record.refused("created", "seconds since 1970")
    counted = usage if isinstance(usage, dict) else {"prompt_tokens": None}
    names = ("prompt_tokens", "completion_tokens")
    counts = {n: count for n in names if type(count := counted.get(n, 0)) is int}
    if len(counts) < len(names):
        raise record.refused("usage", "whole numbers of prompt_tokens and completion_tokens")
    return Answer(
        question_id=record.identity("question_id"),
        turn_texts=record.texts("turn_texts"),
        model=model,
        endpoint_model=record.text("endpoint_model") if fields.get("endpoint_model") else "",
        sampling={**sampling},
        usage=counts,
        finish_reasons=record.texts("finish_reasons") if fields.get("finish_reasons") else (),
        thoughts=record.texts("thoughts") if fields.get("thoughts") else (),
        created=float(created),
    )
