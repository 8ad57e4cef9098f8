"""`report`: report.json and one self-contained report.html from an evaluation folder."""

import time
from collections.abc import Sequence
from typing import Any

from apps.common.command.events import Reporter
from apps.common.errors import InputError
from apps.common.files import lineage, storage
from apps.eval.calls import journal
from apps.eval.config import ReportConfig
from apps.eval.folder import load_folder
from apps.eval.judging.offline import LABEL, is_offline
from apps.eval.judging.parsing import PARSER_VERSION
from apps.eval.page import page
from apps.eval.page.evidence import evidence
from apps.eval.records.answer import Answer, answers_uri, lineage_uri
from apps.eval.records.question import Question
from apps.eval.replay import DRAFT_TABLE, shipped_reviews, tabulate
from apps.eval.scores import suspicious
from apps.eval.scores.agreement import human_agreement
from apps.eval.scores.canaries import canary_check
from apps.eval.scores.costs import costs
from apps.eval.scores.judge_check import by_judge
from apps.eval.scores.judgments import (
    Judgment,
    contests,
    load_judgments,
    require_complete,
    require_current,
)
from apps.eval.scores.length_control import controlled
from apps.eval.scores.protocol import accuracy, protocol_scores

REPORT_JSON, REPORT_HTML = "report.json", "report.html"


def report(config: ReportConfig, reporter: Reporter) -> None:
    questions, answers = load_folder(config.dir)
    if config.baseline is not None and config.baseline not in answers:
        raise InputError(
            f"--baseline {config.baseline!r} is not among the models that answered: "
            f"{', '.join(answers)}"
        )
    judgments = load_judgments(config.dir)
    require_current(judgments, answers)
    if config.human and not any(len(item.models) == 2 for item in judgments):
        raise InputError(
            f"--human {config.human} holds verdicts on pairs and this folder has none; judge it "
            "with --protocol pairwise-swap, verdict or vicuna-blog"
        )
    require_complete([item for item in judgments if item.kind == "contest"], config.allow_missing)
    figures = build(config, questions, answers, judgments)
    found = evidence(figures, questions, answers, judgments)
    storage.write_json(storage.join(config.dir, REPORT_JSON), {**figures, "evidence": found})
    html = page.render(figures, found)
    storage.write_atomic(storage.join(config.dir, REPORT_HTML), html.encode())
    _tell(figures, reporter)
    reporter.event("report.done", html=storage.join(config.dir, REPORT_HTML), bytes=len(html))


def _tell(figures: dict[str, Any], reporter: Reporter) -> None:
    """What one wants to know before opening the page."""
    for name, model in figures["models"].items():
        if found := model["accuracy"]:
            reporter.event(
                "report.accuracy", model=name, correct=found["correct"], total=found["total"]
            )
    for protocol, result in figures["protocols"].items():
        said = {"protocol": protocol, "judges": result["judge_labels"]}
        if result.get("preference"):
            reporter.event("report.preference", **said, **result["preference"])
            continue
        for row in result.get("ratings", {}).get("models", ()):
            shown = {name: round(row[name], 1) for name in ("rating", "low", "high")}
            reporter.event("report.rating", **said, model=row["model"], **shown)
        for name, row in result.get("scores", {}).items():
            if row["mean"] is not None:
                shown = {key: round(row[key], 2) for key in ("mean", "low", "high")}
                reporter.event(
                    "report.score", **said, model=name, **shown, n=row["n"], total=row["total"]
                )


def build(
    config: ReportConfig,
    questions: Sequence[Question],
    answers: dict[str, dict[str, Answer]],
    judgments: Sequence[Judgment],
) -> dict[str, Any]:
    """report.json: every figure of the page."""
    earlier = load_judgments(config.previous) if config.previous else []
    protocols = {}
    for name in dict.fromkeys(item.protocol for item in judgments):
        mine = [item for item in judgments if item.protocol == name]
        before = [item for item in earlier if item.protocol == name]
        protocols[name] = {
            **protocol_scores(
                mine, questions, answers, config.baseline, config.num_resamples, config.seed
            ),
            "judge_labels": [
                LABEL if is_offline(judge) else judge
                for judge in sorted({item.judge for item in mine})
            ],
            "canaries": canary_check(mine, before),
            "by_judge": by_judge(mine, before, answers),
            **_options(config, mine, answers),
        }
    categories = dict.fromkeys(question.category for question in questions)
    paid = costs(journal.read_raw(config.dir))
    return {
        "title": config.title,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "is_offline_judge_used": any(is_offline(item.judge) for item in judgments),
        "usd": sum(row["usd"] for row in paid),
        "costs": paid,
        "questions": {
            "total": len(questions),
            "per_category": {
                category: sum(question.category == category for question in questions)
                for category in categories
            },
        },
        "models": {name: _model(questions, made) for name, made in answers.items()},
        "protocols": protocols,
        "reference_tables": _reference_tables() if config.reference_set else None,
        "contamination": storage.read_json(config.contamination) if config.contamination else None,
        "manifest": _manifest(config, answers),
    }


def _options(
    config: ReportConfig, judgments: Sequence[Judgment], answers: dict[str, dict[str, Answer]]
) -> dict[str, Any]:
    held = contests(item for item in judgments if item.kind == "contest")
    options: dict[str, Any] = {}
    if config.length_control and held:
        options["length_control"] = controlled(held, answers)
    if config.human and held:
        options["human_agreement"] = human_agreement(held, config.human)
    return options


def _model(questions: Sequence[Question], made: dict[str, Answer]) -> dict[str, Any]:
    lengths = [sum(len(text) for text in item.turn_texts) for item in made.values()]
    return {
        "answers": len(made),
        "endpoint_models": sorted({item.endpoint_model for item in made.values()}),
        "mean_answer_chars": sum(lengths) / len(lengths) if lengths else 0.0,
        "cut_answers": sum("length" in item.finish_reasons for item in made.values()),
        "accuracy": accuracy(questions, made),
        "suspicious": suspicious.flags(made),
    }


def _reference_tables() -> list[dict[str, Any]]:
    published = tabulate(shipped_reviews("published"))
    pairs = {
        name: {key: pair[key] for key in ("baseline_total", "vicuna_total", "win", "tie", "loss")}
        for name, pair in published["pairs"].items()
    }
    return [{"name": "published (GPT-4 reviews, 2023-03-30)", "pairs": pairs}, DRAFT_TABLE]


def _manifest(config: ReportConfig, answers: dict[str, dict[str, Answer]]) -> dict[str, Any]:
    """What made these figures: the models, the judging, and the code that scored them."""
    folder = journal.judgments_dir(config.dir)
    names = [name for name in storage.list_dir(folder) if name.startswith("manifest-")]
    return {
        "models": {name: _made_by(config.dir, name, made) for name, made in answers.items()},
        "judging": {
            name.removeprefix("manifest-").removesuffix(".json"): storage.read_json(
                storage.join(folder, name)
            )
            for name in names
        },
        "scoring": lineage.collect(
            inputs={"judgments": storage.digest_file(journal.raw_path(config.dir))},
            config=config,
            parser_version=PARSER_VERSION,
            seed=config.seed,
            num_resamples=config.num_resamples,
        ),
    }


def _made_by(directory: str, name: str, made: dict[str, Answer]) -> dict[str, Any]:
    """Digest and settings of a model's answers, and its lineage where `answer` was given one."""
    kept = lineage_uri(directory, name)
    samplings = [item.sampling for item in made.values()]
    return {
        "answers": storage.digest_file(answers_uri(directory, name)),
        "sampling": [s for i, s in enumerate(samplings) if s and s not in samplings[:i]],
        "lineage": storage.read_json(kept) if storage.exists(kept) else None,
    }
