"""Questions → answers → judgments → report.

    python -m apps.eval answer --questions built-in --model tuned=http://127.0.0.1:8000/v1 \\
        base=http://127.0.0.1:8000/v1 --out eval/
    python -m apps.eval judge eval/ --protocol pairwise-swap --judge gpt-4o --max-usd 20
    python -m apps.eval report eval/
    python -m apps.eval replay

On a cluster: `ray job submit --working-dir . -- python -m apps.eval judge ...`.
Reads questions and OpenAI-compatible endpoints; writes one evaluation folder: questions.jsonl,
answers/, judgments/, report.json and report.html.
"""

import sys

import apps.common.command.interrupt  # noqa: F401  # pyright: ignore[reportUnusedImport]
from apps.common.command.cli import Command, run
from apps.eval.answer import answer
from apps.eval.config import (
    AnswerConfig,
    ContaminationConfig,
    JudgeConfig,
    QuestionsConfig,
    ReparseConfig,
    ReplayConfig,
    ReportConfig,
    WatchConfig,
)
from apps.eval.contamination import contamination
from apps.eval.judge import judge, reparse
from apps.eval.questions import questions
from apps.eval.replay import replay
from apps.eval.report import report
from apps.eval.watch import watch

COMMANDS = {
    "questions": Command(
        config=QuestionsConfig,
        run=questions,
        help="write out the built-in set, or generate one",
        example="--out questions.jsonl",
    ),
    "contamination": Command(
        config=ContaminationConfig,
        run=contamination,
        help="look for the questions in training data",
        example="built-in --data clean",
    ),
    "answer": Command(
        config=AnswerConfig,
        run=answer,
        help="put questions to models, or import their answers",
        example="--questions built-in --model mine=http://127.0.0.1:8000/v1 --out eval",
    ),
    "judge": Command(
        config=JudgeConfig,
        run=judge,
        help="judge answers; every response is paid for once",
        example="eval --protocol pairwise-swap --judge gpt-4o --max-usd 20",
    ),
    "reparse": Command(
        config=ReparseConfig,
        run=reparse,
        help="read stored judgments anew; costs nothing",
        example="eval",
    ),
    "report": Command(
        config=ReportConfig,
        run=report,
        help="score a folder into report.json and report.html",
        example="eval",
    ),
    "watch": Command(
        config=WatchConfig,
        run=watch,
        help="evaluate each checkpoint of a run as it is committed",
        example="s3://bucket/run --questions built-in --out curve",
    ),
    "replay": Command(config=ReplayConfig, run=replay, help="recompute the published Vicuna table"),
}

if __name__ == "__main__":
    sys.exit(run("apps.eval", COMMANDS))
