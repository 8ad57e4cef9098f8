"""`report`: report.json and report.html from an evaluation folder.

The page needs nothing but itself up to 4 MB of texts; those of a larger run lie beside it.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

import orjson

from apps.common.command.events import Reporter
from apps.common.errors import InputError
from apps.common.files import lineage, parts, storage
from apps.eval.calls import journal
from apps.eval.calls.reply import plain_reason
from apps.eval.config import ReportConfig
from apps.eval.figures.answers import ModelRow
from apps.eval.figures.as_json import to_json, to_json_object
from apps.eval.figures.report import Figures, ProtocolFigures, QuestionCounts
from apps.eval.folder import load_folder
from apps.eval.judging.offline import is_offline
from apps.eval.page import page
from apps.eval.page.evidence import Evidence, evidence
from apps.eval.page.texts import cut
from apps.eval.protocols.parsing import PARSER_VERSION
from apps.eval.records.answer import Answer, answers_uri, lineage_uri
from apps.eval.records.question import Question
from apps.eval.replay import DRAFT_TABLE, shipped_reviews, tabulate
from apps.eval.scores import suspicious
from apps.eval.scores.costs import costs, unanswered
from apps.eval.scores.judgments import (
    Judgment,
    load_judgments,
    require_complete,
    require_current,
    scale_of,
)
from apps.eval.scores.people import People, read_people
from apps.eval.scores.protocol import accuracy, protocol_figures
from apps.eval.scores.statistics import Interval, Resampling

REPORT_JSON, REPORT_HTML = "report.json", "report.html"
_JSON = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE

Answers = Mapping[str, Mapping[str, Answer]]


def report(config: ReportConfig, reporter: Reporter) -> None:
    questions, answers = load_folder(config.dir)
    if config.baseline is not None and config.baseline not in answers:
        raise InputError(
            f"--baseline {config.baseline!r} is not among the models that answered: "
            f"{', '.join(answers)}"
        )
    judgments = load_judgments(config.dir)
    require_current(judgments, questions, answers)
    if config.human and not any(len(item.models) == 2 for item in judgments):
        raise InputError(
            f"--human {config.human} holds verdicts on pairs and this folder has none; judge it "
            "with --protocol pairwise-swap, verdict or vicuna-blog"
        )
    require_complete([item for item in judgments if item.kind == "contest"], config.allow_missing)
    people = read_people(config.human, questions) if config.human else None
    if people:
        _tell_left_out(people, judgments, reporter)
    earlier = _earlier(config.previous, questions, judgments, reporter) if config.previous else []
    figures = build(config, questions, answers, judgments, people, earlier)
    if config.previous and not any(one.comparison for one in figures.protocols.values()):
        reporter.line(
            f"{config.previous} shares no judged question and pair or model with this folder, so "
            "no change is shown."
        )
    under = evidence(figures.models, questions, answers, judgments)
    record = {**to_json_object(figures), "evidence": to_json(under)}
    storage.write_atomic(storage.join(config.dir, REPORT_JSON), orjson.dumps(record, option=_JSON))
    html = _write_page(config.dir, figures, under)
    _tell(figures, reporter)
    reporter.event("report.done", html=storage.join(config.dir, REPORT_HTML), bytes=len(html))


def _write_page(directory: str, figures: Figures, under: Evidence) -> bytes:
    """The page, after what it loads; what an older page loads goes when that page is no more."""
    texts = cut(under)
    folder, mine = storage.join(directory, page.TEXTS_DIR), texts.digest()
    for name, content in texts.files():
        storage.write_atomic(storage.join(folder, mine, name), content)
    html = page.render(figures, texts).encode()
    storage.write_atomic(storage.join(directory, REPORT_HTML), html)
    for name in storage.list_dir(folder):
        if texts.is_inline or name != mine:
            storage.remove_tree(storage.join(folder, name))
    return html


def _earlier(
    directory: str,
    questions: Sequence[Question],
    judgments: Sequence[Judgment],
    reporter: Reporter,
) -> list[Judgment]:
    """An earlier run's judgments, without those of other questions or on another scale."""
    ours = {question.question_id: question.turns for question in questions}
    theirs, _ = load_folder(directory)
    changed = {q.question_id for q in theirs if ours.get(q.question_id, q.turns) != q.turns}
    if changed:
        reporter.line(
            f"{len(changed)} questions of {directory} have other words here, such as "
            f"{min(changed)!r}, and are not compared."
        )
    kept = [
        item
        for item in load_judgments(directory)
        if item.kind == "canary" or item.question_id not in changed
    ]
    scales, before = _scales(judgments), _scales(kept)
    rescaled = [name for name, scale in scales.items() if before.get(name, scale) != scale]
    for name in rescaled:
        reporter.line(
            f"{name} gave scores from {_range(before[name])} in {directory} and gives them from "
            f"{_range(scales[name])} here, so they are not compared."
        )
    return [item for item in kept if item.protocol not in rescaled]


def _scales(judgments: Sequence[Judgment]) -> dict[str, Interval]:
    """What the scores of single answers lie on, by protocol."""
    scored = [item for item in judgments if item.scores and len(item.models) == 1]
    return {
        name: scale_of(item for item in scored if item.protocol == name)
        for name in dict.fromkeys(item.protocol for item in scored)
    }


def _range(scale: Interval) -> str:
    return f"{scale[0]:g} to {scale[1]:g}"


def _tell_left_out(people: People, judgments: Sequence[Judgment], reporter: Reporter) -> None:
    """Verdicts of people that no figure rests on, as where a name is spelt otherwise."""
    pairs = [item for item in judgments if len(item.models) == 2]
    beside = people.beside((item.question_id, (item.models[0], item.models[1])) for item in pairs)
    if beside:
        question_id, first, second = beside[0]
        reporter.line(
            f"{len(beside)} of {len(people.outcomes)} verdicts of people are on no contest of this "
            f"folder and are left out, such as on {first} and {second}, question {question_id}."
        )


def _tell(figures: Figures, reporter: Reporter) -> None:
    """What one wants to know before opening the page."""
    for name, model in figures.models.items():
        if right := model.accuracy:
            reporter.event("report.accuracy", model=name, correct=right.correct, total=right.total)
    for protocol, result in figures.protocols.items():
        _tell_protocol(protocol, result, reporter)


def _tell_protocol(protocol: str, result: ProtocolFigures, reporter: Reporter) -> None:
    said = {"protocol": protocol, "judges": list(result.judge_labels)}
    if result.compared and result.compared.preference:
        reporter.event("report.preference", **said, **to_json_object(result.compared.preference))
        return
    for row in result.rated:
        shown = {"rating": row.rating, "low": row.low, "high": row.high}
        rounded = {name: round(value, 1) for name, value in shown.items()}
        reporter.event("report.rating", **said, model=row.model, **rounded)
    for name, row in result.scored.items():
        shown = {"mean": row.mean, "low": row.low, "high": row.high}
        rounded = {key: round(value, 2) for key, value in shown.items() if value is not None}
        reporter.event("report.score", **said, model=name, **rounded, n=row.n, total=row.total)


def build(
    config: ReportConfig,
    questions: Sequence[Question],
    answers: Answers,
    judgments: Sequence[Judgment],
    people: People | None,
    earlier: Sequence[Judgment],
) -> Figures:
    """Every figure of the page; `earlier` are the judgments of the run to compare with."""
    paid = tuple(costs(journal.read_raw(config.dir)))
    return Figures(
        title=config.title,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        is_offline_judge_used=any(is_offline(item.judge) for item in judgments),
        usd=sum(row.usd for row in paid),
        costs=paid,
        unanswered=unanswered(config.dir),
        questions=QuestionCounts(
            total=len(questions),
            per_category=dict(Counter(question.category for question in questions)),
        ),
        models={name: _model(questions, made) for name, made in answers.items()},
        protocols=_protocols(config, questions, answers, judgments, people, earlier),
        reference_tables=_reference_tables() if config.reference_set else None,
        contamination=_contamination(config.contamination) if config.contamination else None,
        manifest=_manifest(config, answers),
    )


def _protocols(
    config: ReportConfig,
    questions: Sequence[Question],
    answers: Answers,
    judgments: Sequence[Judgment],
    people: People | None,
    earlier: Sequence[Judgment],
) -> dict[str, ProtocolFigures]:
    resampling = Resampling(num_resamples=config.num_resamples, seed=config.seed)
    protocols = {
        name: protocol_figures(
            [item for item in judgments if item.protocol == name],
            questions,
            answers,
            resampling,
            previous=[item for item in earlier if item.protocol == name],
            baseline=config.baseline,
            people=people,
            is_style_controlled=config.style_control,
        )
        for name in dict.fromkeys(item.protocol for item in judgments)
    }
    if people and not any(result.calibration for result in protocols.values()):
        raise InputError(
            f"{config.human} holds no verdict on any contest of this folder; check the names"
        )
    return protocols


def _model(questions: Sequence[Question], made: Mapping[str, Answer]) -> ModelRow:
    num_chars = sum(item.num_chars for item in made.values())
    return ModelRow(
        answers=len(made),
        endpoint_models=tuple(sorted({item.endpoint_model for item in made.values()})),
        mean_answer_chars=num_chars / len(made) if made else 0.0,
        cut_answers=sum(
            "length" in map(plain_reason, item.finish_reasons) for item in made.values()
        ),
        accuracy=accuracy(questions, made),
        suspicious=suspicious.flags(made),
    )


def _contamination(uri: str) -> Mapping[str, object]:
    """contamination.json, which `contamination` makes; raises InputError for anything else."""
    try:
        record: object = storage.read_json(uri)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not _is_contamination(cast(Mapping[str, object], record)):
        raise InputError(
            f"--contamination {uri} is not what `python -m apps.eval contamination` makes; give "
            "its contamination.json"
        )
    return cast(Mapping[str, object], record)


def _is_contamination(record: Mapping[str, object]) -> bool:
    rows = record.get("contaminated")
    return (
        all(type(record.get(name)) is int for name in ("questions", "texts"))
        and isinstance(rows, list)
        and all(map(_is_contaminated, cast(list[object], rows)))
    )


def _is_contaminated(row: object) -> bool:
    if not isinstance(row, dict):
        return False
    fields = cast(Mapping[str, object], row)
    shares = [fields.get("overlap"), fields.get("similarity")]
    return isinstance(fields.get("example"), str) and all(type(s) in (int, float) for s in shares)


def _reference_tables() -> tuple[Mapping[str, object], ...]:
    published = tabulate(shipped_reviews("published"))
    pairs = {
        name: {key: pair[key] for key in ("baseline_total", "vicuna_total", "win", "tie", "loss")}
        for name, pair in published["pairs"].items()
    }
    return ({"name": "published (GPT-4 reviews, 2023-03-30)", "pairs": pairs}, DRAFT_TABLE)


def _manifest(config: ReportConfig, answers: Answers) -> dict[str, object]:
    """What made these figures: the models, the judging, and the code that scored them."""
    folder = journal.judgments_dir(config.dir)
    names = [
        name
        for name in storage.list_dir(folder)
        if name.startswith("manifest-") and name.endswith(".json")  # no half-written one
    ]
    return {
        "models": {name: _made_by(config.dir, name, made) for name, made in answers.items()},
        "judging": {
            name.removeprefix("manifest-").removesuffix(".json"): storage.read_json(
                storage.join(folder, name)
            )
            for name in names
        },
        "scoring": lineage.collect(
            inputs={"judgments": parts.digest(journal.raw_path(config.dir))},
            config=config,
            parser_version=PARSER_VERSION,
            seed=config.seed,
            num_resamples=config.num_resamples,
        ),
    }


def _made_by(directory: str, name: str, made: Mapping[str, Answer]) -> dict[str, object]:
    """Digest and settings of a model's answers, and its lineage where `answer` was given one."""
    kept = lineage_uri(directory, name)
    samplings = [item.sampling for item in made.values()]
    return {
        "answers": parts.digest(answers_uri(directory, name)),
        "sampling": [s for i, s in enumerate(samplings) if s and s not in samplings[:i]],
        "lineage": storage.read_json(kept) if storage.exists(kept) else None,
    }
