"""report.html: no network, readable on a phone, in light and dark.

Figures and charts are drawn here, so that they show without scripts. The texts are data, in the
page or beside it (see `texts`), that the page's script fills in when a question is opened. Answers
are untrusted: they are escaped here, and enter the page as text, never as HTML, there.
"""

import json
from collections.abc import Mapping

from markupsafe import Markup

from apps.eval.figures.as_json import to_json
from apps.eval.figures.report import Coverage, Figures, ProtocolFigures
from apps.eval.judging.offline import LABEL
from apps.eval.page.accuracy import accuracy_table
from apps.eval.page.judge_check import judge_cards
from apps.eval.page.leaderboard import leaderboard
from apps.eval.page.parts import fill
from apps.eval.page.summary import summary
from apps.eval.page.tables import heat_tables
from apps.eval.page.texts import Texts

TEXTS_DIR = "report-texts"
_ABOUT = {
    "vicuna-blog": "Both answers in one order, two scores from 1 to 10 (the Vicuna blog's method).",
    "pairwise-swap": "Both answers in both orders; two orders that disagree are a tie.",
    "single": "Each answer alone, from 1 to 10.",
    "mt-bench": "Each answer alone, turn by turn, from 1 to 10, with references where known.",
    "verdict": "Both answers in both orders, five labels from much better to much worse.",
}


def render(figures: Figures, texts: Texts) -> str:
    """The whole page as text; `texts.files()` belong into `TEXTS_DIR`/<their digest> beside it."""
    results = figures.protocols
    return fill(
        "report.html",
        figures=figures,
        models=list(figures.models),
        offline_label=LABEL,
        judges=sorted({label for result in results.values() for label in result.judge_labels}),
        accuracy=accuracy_table(figures),
        summary=summary(figures),
        leaderboard=leaderboard(figures),
        about=_ABOUT,
        not_counted={name: _not_counted(result.judgments) for name, result in results.items()},
        bases={name: _basis(result) for name, result in results.items()},
        heat_tables={name: heat_tables(result) for name, result in results.items()},
        judge_cards={name: judge_cards(result, figures) for name, result in results.items()},
        manifest=json.dumps(figures.manifest, indent=2, ensure_ascii=False),
        data=_script_json(
            {
                "models": texts.models,
                "turns": texts.turns,
                "questions": texts.glances,
                "folder": f"{TEXTS_DIR}/{texts.digest()}",
                "num_index_files": len(texts.index),
            }
        ),
        texts_dir=TEXTS_DIR,
        inline_texts=_escaped(texts.parts[0].decode()) if texts.is_inline else None,
    )


def _not_counted(counts: Coverage) -> str:
    """The judgments without a score, by what came of them; empty if there are none."""
    lost = {
        "unparsed": counts.unparsed,
        "refused": counts.refused,
        "truncated": counts.truncated,
        "missing": counts.missing,
    }
    return ", ".join(f"{n} {name}" for name, n in lost.items() if n)


def _basis(result: ProtocolFigures) -> str:
    """How the percentages of relative quality came about."""
    if result.relative_quality is None:
        return ""
    if result.compared is None:
        return "Percentages compare the means."
    through = result.relative_quality.through
    if not through:
        return "Percentages compare both totals of a model's pair with the baseline."
    hubs = ", ".join(sorted(set(through.values())))
    return (
        f"Percentages compare both totals of a pair; models that never met the baseline are "
        f"chained through {hubs}, as in the Vicuna blog's Figure 1."
    )


def _script_json(record: Mapping[str, object]) -> Markup:
    return _escaped(json.dumps(to_json(record), ensure_ascii=False, separators=(",", ":")))


def _escaped(text: str) -> Markup:
    # Inside a script element only these can end or open anything.
    escaped = {"<": "\\u003c", "\u2028": "\\u2028", "\u2029": "\\u2029"}
    return Markup(text.translate(str.maketrans(escaped)))
