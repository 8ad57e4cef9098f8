"""Verdicts of people, from every layout in which they are handed around.

    ours       {question_id, models: [a, b], winner: a, b or tie}
    arena      {question_id, model_a, model_b, winner: model_a, model_b, tie, tie (bothbad)}, as
               JSONL or CSV; MT-bench's human judgments are such lines, several a question
    votes      {models: [left, right], verdict: left|right|tie|both_bad, conversations, counted}, as
               `apps.serve votes export` writes them; found by what was asked first
    PandaLM    {idx, cmp_key: "a_b", annotator1, annotator2, ...}: 1 or 2 is better, 0 a tie
    FairEval   review_A_B_human.txt: one line a question, in the order of the questions

Several people on one question are averaged.
"""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson

from apps.common.errors import InputError
from apps.common.files import storage
from apps.eval.records.question import Question
from apps.eval.scores.bias import family

_EXPECTED = (
    "expected {question_id, models: [a, b], winner: a, b or tie}, {question_id, model_a, model_b, "
    "winner: model_a, model_b or tie} as JSONL or CSV, exported votes, or PandaLM's annotators"
)
_FAIREVAL = re.compile(r"review_(.+)_(.+)_human\.txt$")
_TIES = {"tie", "tie (bothbad)", "tie (inconsistent)", "both_bad", "both bad", "bothbad"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One person on one question: 1 the first of `models` is better, 0.5 a tie, 0 the second."""

    question_id: str
    models: tuple[str, str]
    outcome: float


@dataclass(frozen=True, kw_only=True, slots=True)
class People:
    """Mean outcome of people on {(question_id, a, b)}."""

    outcomes: Mapping[tuple[str, str, str], float]

    def outcome(self, question_id: str, models: tuple[str, str]) -> float | None:
        first, second = models
        if (given := self.outcomes.get((question_id, first, second))) is not None:
            return given
        turned = self.outcomes.get((question_id, second, first))
        return None if turned is None else 1.0 - turned

    def beside(self, held: Iterable[tuple[str, tuple[str, str]]]) -> list[tuple[str, str, str]]:
        """What they judged that is none of these questions and pairs."""
        known = {(question_id, *sorted(models)) for question_id, models in held}
        return sorted(self.outcomes.keys() - known)


def read_people(uri: str, questions: Sequence[Question]) -> People:
    """Raises InputError that names the line which no layout fits."""
    outcomes: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    asked = {question.question_id for question in questions}
    for verdict in _verdicts(uri, questions):
        first, second = sorted(verdict.models)
        outcome = verdict.outcome if first == verdict.models[0] else 1.0 - verdict.outcome
        question_id = verdict.question_id
        if question_id not in asked:  # tables write the whole number 81 as 81.0
            question_id = question_id.removesuffix(".0")
        outcomes[question_id, first, second].append(outcome)
    return People(outcomes={key: sum(given) / len(given) for key, given in outcomes.items()})


def _verdicts(uri: str, questions: Sequence[Question]) -> Iterator[Verdict]:
    text = storage.read_bytes(uri).decode("utf-8-sig", "replace")
    if named := _FAIREVAL.search(uri):
        yield from _faireval(text, (named[1], named[2]), questions, uri)
        return
    by_prompt = {question.turns[0].strip(): question.question_id for question in questions}
    for number, record in _records(text, uri):
        try:
            yield from _read(record, by_prompt)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            raise InputError(f"{uri} line {number} is not a verdict: {_EXPECTED}") from None


def _records(text: str, uri: str) -> Iterable[tuple[int, Mapping[str, Any]]]:
    """Numbered records of JSONL, a JSON array or CSV."""
    if uri.endswith(".csv"):
        return _rows(text, uri)
    if text.lstrip().startswith("["):
        # PandaLM's file holds NaN, which Python's reader knows and orjson refuses.
        return enumerate(_json_array(text, uri), 1)
    return _lines(text, uri)


def _rows(text: str, uri: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    csv.field_size_limit(2**31 - 1)  # a cell may hold a whole conversation
    try:
        for number, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
            if any(row.values()):
                yield number, row
    except csv.Error as error:
        raise InputError(f"{uri} is no readable CSV ({error}); {_EXPECTED}") from None


def _json_array(text: str, uri: str) -> list[Mapping[str, Any]]:
    import json

    try:
        return cast(list[Mapping[str, Any]], json.loads(text))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{uri} line 1 is not a verdict ({error}); {_EXPECTED}") from None


def _lines(text: str, uri: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, orjson.loads(line)
            except ValueError:
                raise InputError(f"{uri} line {number} is not a verdict: {_EXPECTED}") from None


def _read(record: Mapping[str, Any], by_prompt: Mapping[str, str]) -> Iterator[Verdict]:
    if "cmp_key" in record:
        yield from _pandalm(record)
    elif "verdict" in record:
        if (vote := _vote(record, by_prompt)) is not None:
            yield vote
    else:
        yield _winner(record)


def _winner(record: Mapping[str, Any]) -> Verdict:
    if "models" in record:
        first, second = record["models"]
        names = {first: 1.0, second: 0.0}
    else:
        first, second = record["model_a"], record["model_b"]
        names = {first: 1.0, second: 0.0, "model_a": 1.0, "model_b": 0.0}
    if not first or not second:
        raise ValueError("a verdict without two models")
    outcome = 0.5 if str(record["winner"]).lower() in _TIES else names[record["winner"]]
    return Verdict(
        question_id=str(record["question_id"]), models=(str(first), str(second)), outcome=outcome
    )


def _vote(record: Mapping[str, Any], by_prompt: Mapping[str, str]) -> Verdict | None:
    """None for a vote that does not count, or on something that was not asked here."""
    first, second = record["models"]
    outcome = {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}[record["verdict"]]
    asked = [turn["content"] for turn in record["conversations"][0] if turn["role"] == "user"]
    question_id = by_prompt.get(asked[0].strip()) if asked else None
    if question_id is None or not record.get("counted", True):
        return None
    return Verdict(question_id=question_id, models=(str(first), str(second)), outcome=outcome)


def _pandalm(record: Mapping[str, Any]) -> Iterator[Verdict]:
    first, second = str(record["cmp_key"]).split("_")
    for name, better in record.items():
        if name.startswith("annotator"):
            outcome = {0.0: 0.5, 1.0: 1.0, 2.0: 0.0}[float(better)]
            yield Verdict(question_id=str(record["idx"]), models=(first, second), outcome=outcome)


def _faireval(
    text: str, models: tuple[str, str], questions: Sequence[Question], uri: str
) -> Iterator[Verdict]:
    """Lines name the better model, as ChatGPT for gpt35, or say tie, or win or lose (the first)."""
    lines = [line.strip().lower() for line in text.splitlines() if line.strip()]
    if len(lines) != len(questions):
        raise InputError(
            f"{uri} holds {len(lines)} verdicts in the order of {len(questions)} questions; "
            "expected one line a question"
        )
    words = {"tie": 0.5, "win": 1.0, "lose": 0.0, "1": 1.0, "2": 0.0, "0": 0.5}
    words |= {models[0].lower(): 1.0, models[1].lower(): 0.0}
    families = {family(models[0]): 1.0, family(models[1]): 0.0}
    for number, (line, question) in enumerate(zip(lines, questions, strict=True), 1):
        outcome = words.get(line, families.get(family(line)))
        if outcome is None:
            raise InputError(
                f"{uri} line {number} says {line!r}; expected tie, {models[0]} or {models[1]}"
            )
        yield Verdict(question_id=question.question_id, models=models, outcome=outcome)
