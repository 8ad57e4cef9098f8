"""Answers: what each contestant said, whether asked by us or handed in as a file.

Reads our own layout (design: `answers/<model>.jsonl`), FastChat's and the Vicuna blog's
(`{question_id, text, model_id}`), MT-bench's (`{question_id, model_id, choices: [{turns}]}`) and
AlpacaEval's (`{instruction, output, generator}`), so that a chatbot without an endpoint competes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from apps.common.errors import InputError
from apps.common.files import storage
from apps.eval.records.question import Question


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    question_id: str
    turn_texts: tuple[str, ...]
    model: str
    endpoint_model: str = ""
    sampling: dict[str, Any] = field(default_factory=dict)
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
    return storage.join(directory, "answers", f"{model}.jsonl")


def lineage_uri(directory: str, model: str) -> str:
    """Where the lineage of a contestant is kept."""
    return storage.join(directory, "answers", f"{model}.lineage.json")


def check_model_name(name: str) -> str:
    """A model's name is a file name: letters, digits, dot, dash, underscore."""
    if not name or name.startswith(".") or not all(c.isalnum() or c in "._-" for c in name):
        raise InputError(
            f"{name!r} cannot name a model: expected letters, digits, dots, dashes or underscores, "
            "as in --model tuned=http://127.0.0.1:8000/v1#endpoint-name"
        )
    return name


def read_answers(uri: str, model: str, questions: Sequence[Question]) -> dict[str, Answer]:
    """Answers by question id; a later line wins; a torn last line is left out."""
    by_prompt = {question.turns[0]: question.question_id for question in questions}
    found: dict[str, Answer] = {}
    for line, record in _lines(storage.read_bytes(uri), uri):
        answer = _answer(record, model, by_prompt, f"{uri} line {line}")
        found[answer.question_id] = answer
    return found


def load_all(directory: str, questions: Sequence[Question]) -> dict[str, dict[str, Answer]]:
    """All contestants of an evaluation folder, {model: {question_id: Answer}}, by name."""
    folder = storage.join(directory, "answers")
    names = [name for name in storage.list_dir(folder) if name.endswith(".jsonl")]
    models = {name.removesuffix(".jsonl"): storage.join(folder, name) for name in sorted(names)}
    return {model: read_answers(uri, model, questions) for model, uri in models.items()}


def _lines(data: bytes, uri: str) -> list[tuple[int, Mapping[str, Any]]]:
    """Numbered records. A torn line of our own making (its writer was killed) is passed over."""
    if data.lstrip()[:1] == b"[":
        return list(enumerate(orjson.loads(data), 1))
    records = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            records.append((number, orjson.loads(line)))
        except orjson.JSONDecodeError as error:
            if not line.startswith(b'{"question_id":') or line.endswith(b"}"):
                raise InputError(f"{uri} line {number} is not JSON: {error}") from None
    return records


def _answer(
    record: Mapping[str, Any], model: str, by_prompt: Mapping[str, str], where: str
) -> Answer:
    if "turn_texts" in record:
        return Answer(
            **{
                **record,
                "question_id": str(record["question_id"]),
                "turn_texts": tuple(record["turn_texts"]),
                "finish_reasons": tuple(record.get("finish_reasons", ())),
                "thoughts": tuple(record.get("thoughts", ())),
                "model": model,
            }
        )
    if "instruction" in record and "output" in record:
        question_id = by_prompt.get(record["instruction"])
        if question_id is None:
            raise InputError(f"{where}: its instruction is none of the questions")
        turns: Sequence[str] = [record["output"]]
    else:
        question_id = str(record.get("question_id", ""))
        choices = record.get("choices")
        turns = choices[0]["turns"] if choices else [record["text"]] if "text" in record else []
    if not question_id or not turns:
        raise InputError(
            f"{where} holds no answer; expected turn_texts, text, choices[0].turns, or "
            "instruction with output"
        )
    return Answer(
        question_id=question_id,
        turn_texts=tuple(turns),
        model=model,
        endpoint_model=str(record.get("model_id", record.get("generator", ""))),
    )
