"""Questions: one record, and every public layout that holds the same thing.

Our own layout, one JSON object a line:

    {"question_id": "coding-3", "category": "coding", "turns": ["..."],
     "reference": ["..."],   optional, one per turn: what a good answer says; judges see it
     "match": "exact"}       optional: how an answer is checked against the reference

`match` decides whether accuracy is measured on the question:
    exact      the answer equals the reference, apart from case, outer punctuation and spacing
    contains   the reference occurs in the answer as whole words
    number     the last number of the answer equals the reference's number

What counts as equal in which script is told in match.py.
A reference may list alternatives separated by ` || `. Without `match` the reference only guides
judges and the offline judge.

Also read as they are:
    FastChat's, the blog's       question.jsonl with `text`
    MT-bench's                   `turns` and `reference`, or answers in a reference file
    AlpacaEval's, Alpaca's       a JSON array of `instruction`, which `input` may follow
    Arena-Hard's                 `uid` with `prompt` or `turns: [{content}]`
    OpenAI's                     `messages`, of which the user's are the turns
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.resources import files

import orjson

from apps.common.errors import InputError
from apps.eval.records.json_records import Record, parse_records, read_records
from apps.eval.records.match import Match, agrees, is_comparable

BUILT_IN = "built-in"
OR = " || "
"""between the alternatives of a reference"""
_MATCHES = (None, "exact", "contains", "number")


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    question_id: str
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...] = ()
    match: Match | None = None

    def to_dict(self) -> dict[str, object]:
        record: dict[str, object] = asdict(self)
        return {name: value for name, value in record.items() if value}


def load_questions(uri: str) -> list[Question]:
    """Reads a question file of any known layout; `built-in` is Cria's own set of 80."""
    if uri == BUILT_IN:
        data = files("apps.eval").joinpath("data/questions.jsonl").read_bytes()
        records = parse_records(data, uri)
    else:
        records = read_records(uri)
    questions = [_question(record, number) for number, record in enumerate(records, 1)]
    if not questions:
        raise InputError(f"{uri} holds no questions; expected one JSON object a line")
    seen: dict[str, str] = {}
    for question, record in zip(questions, records, strict=True):
        if question.question_id in seen:
            raise InputError(
                f"{record.where} has question_id {question.question_id!r} twice (first: "
                f"{seen[question.question_id]}); ids are keys"
            )
        seen[question.question_id] = record.where
    return questions


def dump_questions(questions: Iterable[Question]) -> bytes:
    return b"".join(orjson.dumps(question.to_dict()) + b"\n" for question in questions)


def _question(record: Record, number: int) -> Question:
    match = record.fields.get("match")
    if match not in _MATCHES:
        raise record.refused("match", "exact, contains or number, or none")
    turns = _turns(record)
    reference = _reference(record, len(turns))
    if match and not reference:
        raise InputError(f"{record.where}: match {match!r} needs a reference to compare with")
    for accepted in (one for text in reference for one in text.split(OR)):
        if match and not is_comparable(match, accepted):
            expected = f"what {match!r} can compare with, which {accepted!r} is not"
            raise record.refused("reference", expected)
    name = next((name for name in ("question_id", "uid") if name in record.fields), None)
    kind = next((name for name in _CATEGORIES if record.fields.get(name)), None)
    return Question(
        question_id=record.identity(name) if name else str(number),
        category=record.identity(kind) if kind else "generic",
        turns=turns,
        reference=reference,
        match=match,
    )


_CATEGORIES = ("category", "dataset", "cluster")


def _turns(record: Record) -> tuple[str, ...]:
    for field in ("turns", "text", "instruction", "prompt", "question"):
        if field in record.fields:
            has_input = field == "instruction" and record.fields.get("input")
            turns = (record.instruction(),) if has_input else record.texts(field)
            return _filled(record, field, turns)
    if "messages" in record.fields:
        turns = record.said_by("user")
        messages = record.fields["messages"]
        if isinstance(messages, list) and len(turns) < len(messages):
            raise record.refused("messages", "turns of the user only: what others say is not asked")
        return _filled(record, "messages", turns)
    raise InputError(
        f"{record.where} has no question; expected one of turns, text, instruction, prompt, "
        "question or messages"
    )


def _filled(record: Record, field: str, turns: tuple[str, ...]) -> tuple[str, ...]:
    if not all(turn.strip() for turn in turns):
        raise record.refused(field, "a question in every turn")
    return turns


def _reference(record: Record, num_turns: int) -> tuple[str, ...]:
    if not record.fields.get("reference"):
        return ()
    reference = record.texts("reference")
    if len(reference) > num_turns:
        raise record.refused("reference", f"one per turn, of which there are {num_turns}")
    return reference


def load_references(uri: str) -> dict[str, tuple[str, ...]]:
    """Reference answers by question id from MT-bench's file of a model's answers."""
    references: dict[str, tuple[str, ...]] = {}
    for record in read_records(uri):
        field = next((name for name in ("turns", "turn_texts") if name in record.fields), None)
        turns = record.texts(field) if field else record.choice()
        references[record.identity("question_id")] = turns
    return references


def is_correct(question: Question, answer: str, turn: int = 0) -> bool | None:
    """Whether an answer agrees with the reference; None where the question does not say how."""
    if question.match is None or turn >= len(question.reference):
        return None
    accepted = question.reference[turn].split(OR)
    return any(agrees(question.match, answer, reference) for reference in accepted)
