"""`report`: report.json and one self-contained report.html from an evaluation folder."""

import time
from collections.abc import Sequence
from typing import Any

from apps.common import lineage, storage
from apps.common.events import Reporter
from apps.eval import page
from apps.eval.answers import Answer
from apps.eval.config import ReportConfig
from apps.eval.judging import load_folder
from apps.eval.judgments import Judgment, load_judgments, require_complete
from apps.eval.offline import LABEL, is_offline
from apps.eval.questions import Question
from apps.eval.scores import accuracy, protocol_scores

REPORT_JSON, REPORT_HTML = "report.json", "report.html"


def report(config: ReportConfig, reporter: Reporter) -> None:
    questions, answers = load_folder(config.dir)
    judgments = load_judgments(config.dir)
    require_complete([item for item in judgments if item.kind == "contest"], config.allow_missing)
    figures = build(config, questions, answers, judgments)
    storage.write_json(storage.join(config.dir, REPORT_JSON), figures)
    html = page.render(figures, questions, answers, judgments)
    storage.write_atomic(storage.join(config.dir, REPORT_HTML), html.encode())
    for name, model in figures["models"].items():
        found = model["accuracy"]
        if found:
            reporter.event(
                "report.accuracy", model=name, correct=found["correct"], total=found["total"]
            )
    for protocol, result in figures["protocols"].items():
        if result.get("preference"):
            reporter.event(
                "report.preference",
                protocol=protocol,
                judges=result["judge_labels"],
                **result["preference"],
            )
    reporter.event("report.done", html=storage.join(config.dir, REPORT_HTML), bytes=len(html))


def build(
    config: ReportConfig,
    questions: Sequence[Question],
    answers: dict[str, dict[str, Answer]],
    judgments: Sequence[Judgment],
) -> dict[str, Any]:
    """report.json: every figure of the page."""
    protocols = {}
    for name in dict.fromkeys(item.protocol for item in judgments):
        mine = [item for item in judgments if item.protocol == name]
        protocols[name] = protocol_scores(
            mine, questions, answers, config.baseline, config.num_resamples, config.seed
        )
        protocols[name]["judge_labels"] = [
            LABEL if is_offline(judge) else judge for judge in protocols[name]["judges"]
        ]
    return {
        "title": config.title,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "is_offline_judge_used": any(is_offline(item.judge) for item in judgments),
        "questions": {
            "total": len(questions),
            "per_category": {
                category: sum(question.category == category for question in questions)
                for category in dict.fromkeys(question.category for question in questions)
            },
        },
        "models": {
            name: {
                "answers": len(made),
                "mean_answer_chars": _mean_chars(made),
                "accuracy": accuracy(questions, made),
            }
            for name, made in answers.items()
        },
        "protocols": protocols,
        "lineage": lineage.collect(inputs={}, config=config),
    }


def _mean_chars(made: dict[str, Answer]) -> float:
    lengths = [sum(len(text) for text in item.turn_texts) for item in made.values()]
    return sum(lengths) / len(lengths) if lengths else 0.0
