"""`replay`: the published Vicuna table, recomputed from its public reviews.

    python -m apps.eval replay                                   from the scores that Cria ships
    python -m apps.eval replay FOLDER --mode reparsed --json     from the blog's own files
    python -m apps.eval replay FOLDER --out eval/                and into a folder for `report`
    python -m apps.eval replay data/mt_bench --out eval/         MT-bench's judgments, likewise

FOLDER holds question.jsonl and review/review_<baseline>_<model>.jsonl with `text` and `score`
(github.com/lm-sys/vicuna-blog-eval, eval/table). Published arithmetic: one GPT-4 review per
question and pair, in one order, Vicuna second. Totals are plain sums over 80 reviews, so that
Vicuna has a total of its own in every pair. The relative quality of Figure 1 chains each pair
through Vicuna to ChatGPT: baseline / vicuna in their pair x vicuna / chatgpt in theirs.

`published` uses the stored scores. Two of them, typed in by hand, contradict their review's text
(question 70 against Bard and LLaMA); `reparsed` uses what the texts say.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, NotRequired, TypedDict, cast

from rich.console import Console
from rich.table import Table

from apps.common.command.events import Reporter
from apps.common.errors import CorruptError, InputError
from apps.common.files import storage
from apps.eval.config import ReplayConfig
from apps.eval.imports.vicuna_blog import import_reviews, review_files
from apps.eval.protocols.parsing import parse
from apps.eval.records.json_records import Record, read_records
from apps.eval.records.question import load_questions

Mode = Literal["published", "reparsed"]
REFERENCE_BASELINES = ("gpt35", "chatgpt", "gpt-3.5-turbo")

# The early draft's table: a named set to show beside one's own run. No public reviews yield it,
# so nothing here can recompute it.
DRAFT_TABLE: Mapping[str, object] = {
    "name": "early draft (cannot be recomputed from public data)",
    "pairs": {
        "llama-13b": {"baseline_total": 525.5, "vicuna_total": 678.5},
        "alpaca-13b": {"baseline_total": 603.5, "vicuna_total": 692.0},
        "bard": {"baseline_total": 661.0, "vicuna_total": 645.0},
        "gpt35": {"baseline_total": 678.0, "vicuna_total": 632.0},
    },
    "better_or_equal_to_chatgpt": 0.575,
    "relative_quality": 0.93,
}


class Pair(TypedDict):
    """Vicuna against one baseline, over all questions."""

    n: int
    baseline_total: float
    vicuna_total: float
    win: float
    tie: float
    loss: float
    win_rate: float
    win_or_tie_rate: float
    per_category: dict[str, dict[str, float]]


class BlogTable(TypedDict):
    pairs: dict[str, Pair]
    """by baseline"""
    relative_quality_percent: NotRequired[dict[str, float]]
    """everyone relative to ChatGPT = 100, through Vicuna; absent without ChatGPT"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Review:
    """One judgment of the blog's evaluation: two scores for one question."""

    baseline: str
    question_id: str
    category: str
    baseline_score: float
    vicuna_score: float


def replay(config: ReplayConfig, reporter: Reporter) -> None:
    if config.out is not None:
        import_reviews(config, reporter)
        return
    reviews = shipped_reviews(config.mode)
    if config.folder is not None:
        reviews = folder_reviews(config.folder, config.mode)
    table = tabulate(reviews)
    if config.json:
        print(json.dumps({"mode": config.mode, **table}, indent=2))
    elif reporter.is_json:
        reporter.event("replay.done", mode=config.mode, **table)
    else:
        _print(table, config.mode)


def shipped_reviews(mode: Mode) -> list[Review]:
    """The scores of the 320 public reviews, as facts without their texts."""
    text = files("apps.eval").joinpath("data/vicuna_blog_scores.csv").read_text()
    kind = "score" if mode == "published" else "reparsed"
    return [
        Review(
            baseline=row["baseline"],
            question_id=row["question_id"],
            category=row["category"],
            baseline_score=float(row[f"baseline_{kind}"]),
            vicuna_score=float(row[f"vicuna_{kind}"]),
        )
        for row in csv.DictReader(text.splitlines())
    ]


def folder_reviews(folder: str, mode: Mode) -> list[Review]:
    questions = load_questions(storage.join(folder, "question.jsonl"))
    categories = {question.question_id: question.category for question in questions}
    return [
        review
        for (baseline, _), uri in review_files(folder).items()
        for review in _pair(baseline, read_records(uri), categories, mode, uri)
    ]


def _pair(
    baseline: str,
    records: Sequence[Record],
    categories: Mapping[str, str],
    mode: Mode,
    uri: str,
) -> list[Review]:
    seen = [record.identity("question_id") for record in records]
    if sorted(seen) != sorted(categories):
        raise InputError(
            f"{uri} reviews {len(set(seen))} of {len(categories)} questions; totals with missing "
            "or doubled items would mislead: complete the file"
        )
    return [
        Review(
            baseline=baseline,
            question_id=question_id,
            category=categories[question_id],
            baseline_score=scores[0],
            vicuna_score=scores[1],
        )
        for question_id, record in zip(seen, records, strict=True)
        for scores in [_scores(record, mode)]
    ]


def _scores(record: Record, mode: Mode) -> tuple[float, ...]:
    if mode == "published":
        stored = record.fields.get("score")
        if not isinstance(stored, list) or len(scores := cast(list[object], stored)) != 2:
            raise record.refused("score", "two numbers")
        numbers = [s for s in scores if isinstance(s, int | float) and not isinstance(s, bool)]
        if len(numbers) != 2:
            raise record.refused("score", "two numbers")
        return tuple(float(number) for number in numbers)
    parsed = parse(record.text("text"), "scores")
    if parsed.scores is None:
        raise CorruptError(
            f"{record.where}: this review is {parsed.status}; a failure "
            "is no score: mend the text, or use --mode published"
        )
    return parsed.scores


def tabulate(reviews: Sequence[Review]) -> BlogTable:
    """Totals, wins of Vicuna, categories and the chained relative quality."""
    pairs: dict[str, Pair] = {}
    for baseline in dict.fromkeys(review.baseline for review in reviews):
        mine = [review for review in reviews if review.baseline == baseline]
        categories = dict.fromkeys(review.category for review in mine)
        totals = _totals(mine)
        pairs[baseline] = {
            "n": len(mine),
            "baseline_total": totals["baseline"],
            "vicuna_total": totals["vicuna"],
            "win": totals["win"],
            "tie": totals["tie"],
            "loss": totals["loss"],
            "win_rate": totals["win"] / len(mine),
            "win_or_tie_rate": (totals["win"] + totals["tie"]) / len(mine),
            "per_category": {
                category: _totals(review for review in mine if review.category == category)
                for category in categories
            },
        }
    quality = _relative_quality(pairs)
    return {"pairs": pairs, "relative_quality_percent": quality} if quality else {"pairs": pairs}


def _totals(reviews: Iterable[Review]) -> dict[str, float]:
    rows = list(reviews)
    return {
        "baseline": sum(row.baseline_score for row in rows),
        "vicuna": sum(row.vicuna_score for row in rows),
        "win": sum(row.vicuna_score > row.baseline_score for row in rows),
        "tie": sum(row.vicuna_score == row.baseline_score for row in rows),
        "loss": sum(row.vicuna_score < row.baseline_score for row in rows),
    }


def _relative_quality(pairs: Mapping[str, Pair]) -> dict[str, float]:
    """Figure 1: everyone relative to ChatGPT = 100 %, through Vicuna; {} without ChatGPT."""
    anchor = next((name for name in REFERENCE_BASELINES if name in pairs), None)
    if anchor is None:
        return {}
    vicuna = pairs[anchor]["vicuna_total"] / pairs[anchor]["baseline_total"]
    chain = {
        name: 100 * vicuna * pair["baseline_total"] / pair["vicuna_total"]
        for name, pair in pairs.items()
    }
    return {**chain, "vicuna": 100 * vicuna, anchor: 100.0}


def _print(table: BlogTable, mode: Mode) -> None:
    rows = Table(title=f"Vicuna blog, GPT-4 reviews, {mode} scores", title_justify="left")
    for name in ("baseline", "baseline total", "Vicuna total", "win", "tie", "loss", "relative"):
        rows.add_column(name, justify="left" if name == "baseline" else "right")
    quality = table.get("relative_quality_percent") or {}
    for name, pair in table["pairs"].items():
        relative = f"{quality[name]:.2f} %" if name in quality else ""
        counts = [str(count) for count in (pair["win"], pair["tie"], pair["loss"])]
        rows.add_row(
            name, f"{pair['baseline_total']:.1f}", f"{pair['vicuna_total']:.1f}", *counts, relative
        )
    console = Console()
    console.print(rows)
    if quality:
        console.print(f"Vicuna relative to ChatGPT: {quality['vicuna']:.2f} %")
