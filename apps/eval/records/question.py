"""Questions: one record, and every public layout that holds the same thing.

Our own layout, one JSON object a line:

    {"question_id": "coding-3", "category": "coding", "turns": ["..."],
     "reference": ["..."],   optional, one per turn: what a good answer says; judges see it
     "match": "exact"}       optional: how an answer is checked against the reference

`match` decides whether accuracy is measured on the question:
    exact      the answer equals the reference, apart from case, outer punctuation and spacing
    contains   the reference occurs in the answer as whole words
    number     the last number of the answer equals the reference's number
A reference may list alternatives separated by ` || `. Without `match` the reference only guides
judges and the offline judge.

Also read as they are: FastChat's and the Vicuna blog's `question.jsonl` (`text`), MT-bench
(`turns`, `reference`, or answers in a reference file), AlpacaEval (a JSON array of `instruction`)
and Arena-Hard (`prompt` or `turns: [{content}]`, `uid`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any, Literal

import orjson

from apps.common.errors import InputError
from apps.common.files import storage

Match = Literal["exact", "contains", "number"]
BUILT_IN = "built-in"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    question_id: str
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...] = ()
    match: Match | None = None

    def to_dict(self) -> dict[str, Any]:
        record = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in record.items() if v}


def load_questions(uri: str) -> list[Question]:
    """Reads a question file of any known layout; `built-in` is Cria's own set of 80."""
    if uri == BUILT_IN:
        data = files("apps.eval").joinpath("data/questions.jsonl").read_bytes()
    else:
        data = storage.read_bytes(uri)
    questions = [_question(record, line, uri) for line, record in _records(data, uri)]
    if not questions:
        raise InputError(f"{uri} holds no questions; expected one JSON object a line")
    seen: set[str] = set()
    for question in questions:
        if question.question_id in seen:
            raise InputError(f"{uri} has question_id {question.question_id!r} twice; ids are keys")
        seen.add(question.question_id)
    return questions


def dump_questions(questions: Iterable[Question]) -> bytes:
    return b"".join(orjson.dumps(question.to_dict()) + b"\n" for question in questions)


def _records(data: bytes, uri: str) -> list[tuple[int, Mapping[str, Any]]]:
    try:
        if data.lstrip()[:1] == b"[":
            return list(enumerate(orjson.loads(data), 1))
        lines = enumerate(data.splitlines(), 1)
        return [(number, orjson.loads(line)) for number, line in lines if line.strip()]
    except orjson.JSONDecodeError as error:
        raise InputError(f"{uri} is not JSON or JSONL: {error}") from None


def _question(record: Mapping[str, Any], line: int, uri: str) -> Question:
    match = record.get("match")
    if match not in (None, "exact", "contains", "number"):
        raise InputError(
            f"{uri} line {line}: match is {match!r}; expected exact, contains or number, or none"
        )
    turns = _turns(record)
    if not turns:
        raise InputError(
            f"{uri} line {line} has no question; expected one of turns, text, instruction, prompt"
        )
    reference = _texts(record.get("reference"))
    if match and not reference:
        raise InputError(f"{uri} line {line}: match {match!r} needs a reference to compare with")
    identity = record.get("question_id", record.get("uid", line))
    category = record.get("category") or record.get("dataset") or record.get("cluster") or "generic"
    return Question(
        question_id=str(identity),
        category=str(category),
        turns=turns,
        reference=reference,
        match=match,
    )


def _turns(record: Mapping[str, Any]) -> tuple[str, ...]:
    for field in ("turns", "text", "instruction", "prompt"):
        if record.get(field):
            return _texts(record[field])
    return ()


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    return tuple(item["content"] if isinstance(item, Mapping) else str(item) for item in value)


def load_references(uri: str) -> dict[str, tuple[str, ...]]:
    """Reference answers by question id from MT-bench's file of a model's answers."""
    found: dict[str, tuple[str, ...]] = {}
    for line, record in _records(storage.read_bytes(uri), uri):
        choices = record.get("choices") or [{}]
        turns = record.get("turns") or record.get("turn_texts") or choices[0].get("turns")
        if not turns:
            raise InputError(f"{uri} line {line} has no reference; expected choices[0].turns")
        found[str(record["question_id"])] = _texts(turns)
    return found


def is_correct(question: Question, answer: str, turn: int = 0) -> bool | None:
    """Whether an answer agrees with the reference; None where the question does not say how."""
    if question.match is None or turn >= len(question.reference):
        return None
    accepted = question.reference[turn].split(" || ")
    return any(_agrees(question.match, answer, reference) for reference in accepted)


def _agrees(match: Match, answer: str, reference: str) -> bool:
    if match == "number":
        return (wanted := _last_number(reference)) is not None and _last_number(answer) == wanted
    if match == "contains":
        return f" {_plain(reference)} " in f" {_plain(answer)} "
    return _normal(answer) == _normal(reference)


def _normal(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().strip(".!?,;:\"'`*").strip().casefold()


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[\w.+#-]*\w[+#]*", text.casefold()))


def _last_number(text: str) -> float | None:
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    return float(found[-1].replace(",", "")) if found else None
