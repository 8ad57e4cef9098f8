"""Which calls an evaluation needs: pairs, orders, turns, repeats, canaries and self-checks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import combinations
from typing import TYPE_CHECKING, Any, cast

import orjson

from apps.common.errors import InputError
from apps.common.files import storage
from apps.eval.calls.lines import ParsedLine, ResponseLine
from apps.eval.judging import protocols
from apps.eval.judging.call import Call, answers_digest, digest
from apps.eval.judging.offline import ReferenceCheck, is_offline
from apps.eval.judging.parsing import Format, parse
from apps.eval.judging.protocols import PROTOCOLS, Protocol
from apps.eval.records.answer import Answer
from apps.eval.records.question import Question, is_correct

if TYPE_CHECKING:
    from apps.eval.config import JudgeConfig  # imports the command line, which no task needs

Answers = Mapping[str, Mapping[str, Answer]]
BETTER, WORSE = "canary-better", "canary-worse"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    calls: tuple[Call, ...]
    unanswered: tuple[tuple[str, str], ...]
    """(model, question_id) without an answer to every turn: its judgments are missing, not lost"""
    unjudged: tuple[Call, ...]
    """the judgments of those: counted as missing, never sent"""
    without_reference: tuple[str, ...]
    """questions that the offline judge cannot judge"""


def make_plan(config: "JudgeConfig", questions: Sequence[Question], answers: Answers) -> Plan:
    """Every judgment of the folder under these settings, done or not."""
    protocol = PROTOCOLS[config.protocol]
    entrants = _entrants(config, protocol, answers)
    prompts = _prompt_file(config.prompt_file)
    calls: list[Call] = []
    unjudged: list[Call] = []
    unanswered: set[tuple[str, str]] = set()
    for judge in config.judge:
        for question in questions:
            if is_offline(judge) and not question.reference:
                continue
            for models in entrants:
                shown = [_turn_texts(answers[model], question) for model in models]
                for model, texts in zip(models, shown, strict=True):
                    if len(texts) < len(question.turns):
                        unanswered.add((model, question.question_id))
                for call in _calls(config, protocol, judge, question, models, shown, prompts):
                    num_turns = _num_turns(protocol, question, call.turn)
                    (calls if min(map(len, shown)) >= num_turns else unjudged).append(call)
        if not is_offline(judge):
            calls += _self_checks(config, protocol, judge, questions, answers, prompts)
            calls += _canaries(config, protocol, judge, prompts)
    if not calls:
        raise InputError(
            "there is nothing to judge: the offline judge needs questions with a reference, and "
            "every judge needs answers; see `python -m apps.eval answer --help`"
        )
    has_offline = any(is_offline(judge) for judge in config.judge)
    return Plan(
        calls=tuple(calls),
        unanswered=tuple(sorted(unanswered)),
        unjudged=tuple(unjudged),
        without_reference=tuple(
            q.question_id for q in questions if has_offline and not q.reference
        ),
    )


def ask_again(call: Call, was_truncated: bool) -> Call:
    """The next ask of a judgment whose response could not be read; more room if it was cut."""
    room = call.max_tokens * (2 if was_truncated else 1)
    return replace(call, ask=call.ask + 1, parameters={**call.parameters, "max_tokens": room})


def remaining(
    calls: Iterable[Call], responses: Iterable[ResponseLine], max_asks: int
) -> list[Call]:
    """What is still to be sent: the next ask of every judgment that cannot be read yet."""
    stored = {record["key"]: record for record in responses}
    left: list[Call] = []
    for call in calls:
        while call.key in stored and call.ask < max_asks:
            status = parse_record(stored[call.key])["status"]
            if status == "ok":
                break
            call = ask_again(call, was_truncated=status == "truncated")
        if call.key not in stored and call.ask < max_asks:
            left.append(call)
    return left


def parse_record(record: ResponseLine) -> ParsedLine:
    """A line of parsed-<version>.jsonl from a line of raw.jsonl."""
    fmt = cast(Format, record["format"])
    parsed = parse(record["response_text"], fmt, record["finish_reason"], record["nonce"])
    line: ParsedLine = {"key": record["key"], "status": parsed.status}
    if parsed.scores is not None:
        line["scores"] = list(parsed.scores)
    if parsed.verdict is not None:
        line["verdict"] = parsed.verdict
    return line


def _turn_texts(made: Mapping[str, Answer], question: Question) -> Sequence[str]:
    """What a model said, turn by turn; fewer than the question's where it did not answer all."""
    answer = made.get(question.question_id)
    return answer.turn_texts if answer else ()


def _num_turns(protocol: Protocol, question: Question, turn: int) -> int:
    """How many turns are shown when `turn` is judged."""
    return turn + 1 if protocol.turns == "each" else len(question.turns)


def _entrants(config: "JudgeConfig", protocol: Protocol, answers: Answers) -> list[tuple[str, ...]]:
    names = sorted(answers)
    if not protocol.is_pairwise:
        return [(name,) for name in names]
    if config.against is not None:
        if config.against not in answers:
            raise InputError(
                f"--against {config.against!r} is not among the models that answered: "
                f"{', '.join(names)}"
            )
        return [(name, config.against) for name in names if name != config.against]
    if len(names) < 2:
        raise InputError(
            f"{config.protocol} compares two models and the folder has answers of "
            f"{len(names)}; add one, or use --protocol single"
        )
    return [*combinations(names, 2)]


def _calls(
    config: "JudgeConfig",
    protocol: Protocol,
    judge: str,
    question: Question,
    models: tuple[str, ...],
    shown: Sequence[Sequence[str]],
    prompts: Mapping[str, Mapping[str, Any]],
    kind: str = "contest",
) -> Iterator[Call]:
    shown_digest = answers_digest(models, shown)
    for turn in range(len(question.turns) if protocol.turns == "each" else 1):
        num_turns = _num_turns(protocol, question, turn)
        turns, reference = question.turns[:num_turns], question.reference[:num_turns]
        for order in protocol.orders:
            displayed = [
                [*texts[:num_turns], *[""] * (num_turns - len(texts))]
                for texts in (shown[::-1] if order else shown)
            ]
            for repeat in range(config.repeats):
                nonce = digest(question.question_id, turns, displayed, repeat)[:10]
                yield Call(
                    protocol=protocol.name,
                    question_id=question.question_id,
                    category=question.category,
                    models=models,
                    order=order,
                    repeat=repeat,
                    turn=turn,
                    judge=judge,
                    messages=_messages(
                        protocol, question.category, turns, reference, displayed, nonce, prompts
                    ),
                    parameters=_parameters(config, protocol),
                    fmt=protocol.fmt,
                    nonce=nonce,
                    answers_digest=shown_digest,
                    kind=kind,
                    reference_check=_reference_check(question, reference, displayed)
                    if is_offline(judge)
                    else None,
                )


def _messages(
    protocol: Protocol,
    category: str,
    turns: Sequence[str],
    reference: Sequence[str],
    displayed: Sequence[Sequence[str]],
    nonce: str,
    prompts: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, str], ...]:
    if not protocol.is_pairwise:
        return protocols.single_messages(turns, reference, displayed[0], nonce)
    if prompts:
        firsts = [texts[0] for texts in displayed]
        return protocols.file_messages(prompts[protocols.vicuna_kind(category)], turns[0], firsts)
    return protocols.pair_messages(protocol, category, turns, reference, displayed, nonce)


def _parameters(config: "JudgeConfig", protocol: Protocol) -> dict[str, Any]:
    temperature = protocol.temperature if config.temperature is None else config.temperature
    return {"temperature": temperature, "max_tokens": config.max_tokens or protocol.max_tokens}


def _reference_check(
    question: Question, reference: Sequence[str], displayed: Sequence[Sequence[str]]
) -> ReferenceCheck:
    checks = [
        [is_correct(question, text, turn) for turn, text in enumerate(texts[: len(reference)])]
        for texts in displayed
    ]
    return ReferenceCheck(
        references=tuple(reference),
        answers=tuple(tuple(texts) for texts in displayed),
        correct=tuple(None if None in check or not check else all(check) for check in checks),
    )


def _self_checks(
    config: "JudgeConfig",
    protocol: Protocol,
    judge: str,
    questions: Sequence[Question],
    answers: Answers,
    prompts: Mapping[str, Mapping[str, Any]],
) -> Iterator[Call]:
    """The same answer on both sides: an unbiased judge calls a tie, or favours no place."""
    if not protocol.is_pairwise:
        return
    name = config.against or sorted(answers)[0]
    whole = [q for q in questions if len(_turn_texts(answers[name], q)) >= len(q.turns)]
    for question in whole[: config.self_checks]:
        texts = _turn_texts(answers[name], question)
        both, pair = (name, name), [texts, texts]
        made = _calls(config, protocol, judge, question, both, pair, prompts, kind="self")
        yield from (call for call in made if call.order == 0)


def _canaries(
    config: "JudgeConfig", protocol: Protocol, judge: str, prompts: Mapping[str, Mapping[str, Any]]
) -> Iterator[Call]:
    if not config.canaries:
        return
    for canary in load_canaries():
        question = Question(
            question_id=canary["question_id"],
            category=canary["category"],
            turns=(canary["question"],),
        )
        sides = {BETTER: [canary["better"]], WORSE: [canary["worse"]]}
        entrants = [(BETTER, WORSE)] if protocol.is_pairwise else [(BETTER,), (WORSE,)]
        for models in entrants:
            shown = [sides[model] for model in models]
            yield from _calls(
                config, protocol, judge, question, models, shown, prompts, kind="canary"
            )


def load_canaries() -> list[dict[str, str]]:
    """Fixed pairs of answers of which one is plainly better."""
    data = files("apps.eval").joinpath("data/canaries.jsonl").read_bytes()
    return [orjson.loads(line) for line in data.splitlines() if line.strip()]


def _prompt_file(uri: str | None) -> dict[str, dict[str, Any]]:
    if uri is None:
        return {}
    records = [orjson.loads(line) for line in storage.read_bytes(uri).splitlines() if line.strip()]
    prompts = {record["category"]: record for record in records}
    if missing := {"general", "coding", "math"} - prompts.keys():
        raise InputError(f"{uri} has no prompt of category {sorted(missing)}; see FastChat's file")
    return prompts
