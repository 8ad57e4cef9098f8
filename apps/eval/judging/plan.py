"""Which calls an evaluation needs: pairs, orders, turns, repeats, canaries and self-checks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations, zip_longest
from typing import TYPE_CHECKING

import orjson

from apps.common.errors import InputError
from apps.eval.calls.lines import Message, Parameters
from apps.eval.judging.call import Call, answers_digest, digest
from apps.eval.judging.offline import ReferenceCheck, is_offline
from apps.eval.protocols import wording
from apps.eval.protocols.load import BUILT_IN, Protocol, load_protocol, vicuna_kind
from apps.eval.protocols.prompt_file import load_prompts
from apps.eval.records.answer import Answer
from apps.eval.records.question import Question, is_correct

if TYPE_CHECKING:
    from apps.eval.config import JudgeConfig  # imports the command line, which no task needs

Answers = Mapping[str, Mapping[str, Answer]]
BETTER, WORSE = "canary-better", "canary-worse"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    protocol: str
    """its name"""
    calls: tuple[Call, ...]
    unanswered: tuple[tuple[str, str], ...]
    """(model, question_id) without an answer to every turn: its judgments are missing, not lost"""
    unjudged: tuple[Call, ...]
    """the judgments of those: counted as missing, never sent"""
    without_reference: tuple[str, ...]
    """questions that the offline judge cannot judge"""


def make_plan(
    config: "JudgeConfig",
    questions: Sequence[Question],
    answers: Answers,
    judge_models: Mapping[str, str] | None = None,
) -> Plan:
    """Every judgment of the folder under these settings, done or not.

    `judge_models` says what the judges' endpoints call them, where that is not their name.
    """
    planner = _Planner(
        config=config,
        protocol=load_protocol(config.protocol),
        prompts=load_prompts(config.prompt_file),
        judge_models=judge_models or {},
    )
    entrants = _entrants(config, planner.protocol, answers)
    calls: list[Call] = []
    unjudged: list[Call] = []
    unanswered: set[tuple[str, str]] = set()
    for judge in config.judge_names:
        for question in questions:
            if is_offline(judge) and not question.reference:
                continue
            for models in entrants:
                shown = [_turn_texts(answers[model], question) for model in models]
                for model, texts in zip(models, shown, strict=True):
                    if len(texts) < len(question.turns):
                        unanswered.add((model, question.question_id))
                thoughts = [_thoughts(config, answers[model], question) for model in models]
                for call in planner.calls(judge, question, models, shown, thoughts):
                    num_turns = planner.num_turns(question, call.turn)
                    (calls if min(map(len, shown)) >= num_turns else unjudged).append(call)
        if not is_offline(judge):
            calls += planner.self_checks(judge, questions, answers)
            calls += planner.canaries(judge)
    if not calls:
        raise InputError(
            "there is nothing to judge: the offline judge needs questions with a reference, and "
            "every judge needs answers; see `python -m apps.eval answer --help`"
        )
    has_offline = any(is_offline(judge) for judge in config.judge_names)
    if has_offline and planner.protocol.name not in BUILT_IN:
        raise InputError(
            f"the offline judge cannot read the task of {planner.protocol.name}; name a --judge"
        )
    return Plan(
        protocol=planner.protocol.name,
        calls=tuple(calls),
        unanswered=tuple(sorted(unanswered)),
        unjudged=tuple(unjudged),
        without_reference=tuple(
            q.question_id for q in questions if has_offline and not q.reference
        ),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Planner:
    """What all calls of a plan have in common."""

    config: "JudgeConfig"
    protocol: Protocol
    prompts: Mapping[str, Mapping[str, object]]
    """FastChat's, by category; {} for our own wording"""
    judge_models: Mapping[str, str]

    def num_turns(self, question: Question, turn: int) -> int:
        """How many turns are shown when `turn` is judged."""
        return turn + 1 if self.protocol.turns == "each" else len(question.turns)

    def calls(
        self,
        judge: str,
        question: Question,
        models: tuple[str, ...],
        shown: Sequence[Sequence[str]],
        thoughts: Sequence[Sequence[str]] = ((), ()),
        kind: str = "contest",
    ) -> Iterator[Call]:
        """All turns, orders and repeats of one question."""
        protocol, shown_digest = self.protocol, answers_digest(models, shown)
        shown = [_with_thoughts(*pair) for pair in zip(shown, thoughts, strict=False)]
        for turn in range(len(question.turns) if protocol.turns == "each" else 1):
            num_turns = self.num_turns(question, turn)
            turns, reference = question.turns[:num_turns], question.reference[:num_turns]
            is_equal = kind == "contest" and self._is_tie([texts[:num_turns] for texts in shown])
            for order in protocol.orders:
                displayed = [
                    [*texts[:num_turns], *[""] * (num_turns - len(texts))]
                    for texts in (shown[::-1] if order else shown)
                ]
                for repeat in range(self.config.repeats):
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
                        judge_model=self.judge_models.get(judge, ""),
                        messages=self._messages(question, turns, reference, displayed, nonce),
                        parameters=self._parameters(),
                        form=protocol.form,
                        nonce=nonce,
                        answers_digest=shown_digest,
                        kind=kind,
                        is_equal=is_equal,
                        reference_check=_reference_check(question, reference, displayed)
                        if is_offline(judge)
                        else None,
                    )

    def self_checks(
        self, judge: str, questions: Sequence[Question], answers: Answers
    ) -> Iterator[Call]:
        """The same answer on both sides: an unbiased judge calls a tie, or favours no place."""
        if not self.protocol.is_pairwise:
            return
        name = self.config.against or sorted(answers)[0]
        whole = [q for q in questions if len(_turn_texts(answers[name], q)) >= len(q.turns)]
        for question in whole[: self.config.self_checks]:
            texts = _turn_texts(answers[name], question)
            made = self.calls(judge, question, (name, name), [texts, texts], kind="self")
            yield from (call for call in made if call.order == 0)

    def canaries(self, judge: str) -> Iterator[Call]:
        """Fixed pairs with a known winner."""
        for canary in load_canaries() if self.config.canaries else ():
            question = Question(
                question_id=canary["question_id"],
                category=canary["category"],
                turns=(canary["question"],),
            )
            sides = {BETTER: [canary["better"]], WORSE: [canary["worse"]]}
            is_pairwise = self.protocol.is_pairwise
            for models in [(BETTER, WORSE)] if is_pairwise else [(BETTER,), (WORSE,)]:
                shown = [sides[model] for model in models]
                yield from self.calls(judge, question, models, shown, kind="canary")

    def _is_tie(self, shown: Sequence[Sequence[str]]) -> bool:
        """Whether both answers are the same, as empty ones are; only a verdict can say tie."""
        if self.config.judge_equal or self.protocol.format not in ("letter", "label"):
            return False
        first, second = ([text.strip() for text in texts] for texts in shown)
        return first == second

    def _messages(
        self,
        question: Question,
        turns: Sequence[str],
        reference: Sequence[str],
        displayed: Sequence[Sequence[str]],
        nonce: str,
    ) -> tuple[Message, ...]:
        category = question.category
        if self.prompts:
            prompt = self.prompts[vicuna_kind(category)]
            return wording.file_messages(prompt, turns[0], [texts[0] for texts in displayed])
        return wording.messages(self.protocol, category, turns, reference, displayed, nonce)

    def _parameters(self) -> Parameters:
        own = self.config.temperature
        return {
            "temperature": self.protocol.temperature if own is None else own,
            "max_tokens": self.config.max_tokens or self.protocol.max_tokens,
        }


def _turn_texts(made: Mapping[str, Answer], question: Question) -> Sequence[str]:
    """What a model said, turn by turn; fewer than the question's where it did not answer all."""
    answer = made.get(question.question_id)
    return answer.turn_texts if answer else ()


def _thoughts(
    config: "JudgeConfig", made: Mapping[str, Answer], question: Question
) -> Sequence[str]:
    """What a model thought before each turn, where the judge shall see it."""
    answer = made.get(question.question_id)
    return answer.thoughts if answer and config.judge_thoughts else ()


def _with_thoughts(texts: Sequence[str], thoughts: Sequence[str]) -> list[str]:
    return [
        f"<think>\n{thought}\n</think>\n\n{text}" if thought else text
        for text, thought in zip_longest(texts, thoughts[: len(texts)], fillvalue="")
    ]


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
            f"{protocol.name} compares two models and the folder has answers of "
            f"{len(names)}; add one, or use --protocol single"
        )
    return [*combinations(names, 2)]


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


def load_canaries() -> list[dict[str, str]]:
    """Fixed pairs of answers of which one is plainly better."""
    data = files("apps.eval").joinpath("data/canaries.jsonl").read_bytes()
    return [orjson.loads(line) for line in data.splitlines() if line.strip()]
