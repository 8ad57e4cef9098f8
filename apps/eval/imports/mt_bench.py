"""MT-bench's judgments as FastChat's llm_judge leaves them, read as judgments of ours.

    python -m apps.eval replay data/mt_bench --out eval/ && python -m apps.eval report eval/

The folder holds question.jsonl, model_answer/<model>.jsonl and, in model_judgment/, any of
    <judge>_single.jsonl   question_id, model, judge: [name, prompt], user_prompt, judgment, turn
    <judge>_pair.jsonl     question_id, model_1, model_2, turn, g1_user_prompt, g1_judgment, g2_...
The first become `mt-bench` ratings; the second `pairwise-swap` verdicts, of which game 2 shows the
models swapped, so that games which disagree are a tie. Texts are read anew and the stored scores
are not used: an `$ERROR$` text is a missing score, and a line written twice counts once.
"""

from collections.abc import Iterator, Mapping, Sequence

from apps.common.errors import NotFoundError
from apps.common.files import storage
from apps.eval.imports.imported import Imported
from apps.eval.judging.call import Call, answers_digest
from apps.eval.protocols.form import Form
from apps.eval.records.answer import Answer, check_model_name, read_answers
from apps.eval.records.json_records import Record, read_records
from apps.eval.records.question import Question, load_questions

JUDGMENTS = "model_judgment"
_KINDS = ("_single.jsonl", "_pair.jsonl")
Answers = Mapping[str, Mapping[str, Answer]]


def is_layout(folder: str) -> bool:
    return any(name.endswith(_KINDS) for name in storage.list_dir(storage.join(folder, JUDGMENTS)))


def read(folder: str) -> Imported:
    """Every model that was judged, its answers and what was said about them."""
    questions = load_questions(storage.join(folder, "question.jsonl"))
    names = [n for n in storage.list_dir(storage.join(folder, JUDGMENTS)) if n.endswith(_KINDS)]
    files = {name: storage.join(folder, JUDGMENTS, name) for name in names}
    records = [(uri, record) for uri in files.values() for record in read_records(uri)]
    answers = {
        model: _answers(folder, model, questions)
        for model in sorted({model for uri, record in records for model in _models(uri, record)})
    }
    by_id = {question.question_id: question for question in questions}
    judged: dict[tuple[object, ...], tuple[Call, str]] = {}
    for uri, record in records:
        for call, text in _calls(uri, record, by_id, answers):
            place = (call.judge, call.protocol, call.models, call.question_id, call.turn)
            judged[(*place, call.order)] = (call, text)
    missing = _missing([call for call, _ in judged.values()], questions, answers)
    return Imported(
        questions=questions,
        answers=answers,
        calls=[*(call for call, _ in judged.values()), *missing],
        responses={call.key: (text, call.judge) for call, text in judged.values()},
        files=files,
        prompts="FastChat's, as imported",
    )


def _models(uri: str, record: Record) -> tuple[str, ...]:
    keys = ("model_1", "model_2") if uri.endswith("_pair.jsonl") else ("model",)
    return tuple(check_model_name(record.text(key)) for key in keys)


def _calls(
    uri: str, record: Record, questions: Mapping[str, Question], answers: Answers
) -> Iterator[tuple[Call, str]]:
    models = _models(uri, record)
    question = questions.get(record.identity("question_id"))
    if question is None:
        raise record.refused("question_id", "an id of question.jsonl")
    turn = record.fields.get("turn")
    if type(turn) is not int or not 1 <= turn <= len(question.turns):
        raise record.refused("turn", f"a turn of the question, 1 to {len(question.turns)}")
    judge = record.texts("judge")[0]
    for order, game in enumerate(("g1_", "g2_") if len(models) == 2 else ("",)):
        prompt, text = record.text(f"{game}user_prompt"), record.text(f"{game}judgment")
        yield _call(judge, question, models, order, turn - 1, prompt, answers), text


def _call(
    judge: str,
    question: Question,
    models: tuple[str, ...],
    order: int,
    turn: int,
    prompt: str,
    answers: Answers,
) -> Call:
    made = [answers[model].get(question.question_id) for model in models]
    return Call(
        protocol="pairwise-swap" if len(models) == 2 else "mt-bench",
        question_id=question.question_id,
        category=question.category,
        models=models,
        order=order,
        repeat=0,
        turn=turn,
        judge=judge,
        messages=({"role": "user", "content": prompt},),
        parameters={"turn": turn},
        form=Form(fmt="letter" if len(models) == 2 else "rating"),
        nonce="",
        answers_digest=answers_digest(models, [a.turn_texts if a else () for a in made]),
    )


def _missing(held: Sequence[Call], questions: Sequence[Question], answers: Answers) -> list[Call]:
    """The judgments that a judge of these contestants left out of some question and turn."""
    known = {(c.judge, c.models, c.question_id, c.turn) for c in held}
    asked = {(c.question_id, c.turn) for c in held}
    by_id = {question.question_id: question for question in questions}
    return [
        _call(judge, by_id[name], models, order, turn, f"question {name}", answers)
        for judge, models in dict.fromkeys((c.judge, c.models) for c in held)
        for name, turn in sorted(asked)
        if (judge, models, name, turn) not in known
        for order in range(len(models))
    ]


def _answers(folder: str, model: str, questions: Sequence[Question]) -> dict[str, Answer]:
    uri = storage.join(folder, "model_answer", f"{model}.jsonl")
    if not storage.exists(uri):
        raise NotFoundError(f"{folder} has judgments of {model} and no {uri}; expected its answers")
    return read_answers(uri, model, questions)
