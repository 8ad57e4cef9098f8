"""report.html: one file, no network, readable on a phone, in light and dark.

Figures and charts are drawn here, so that they show without scripts; the questions are data that
the page's script fills in when one is opened. Answers are untrusted: they are escaped here, and
enter the page as text, never as HTML, there.
"""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from apps.eval.judging.offline import LABEL
from apps.eval.page import sections
from apps.eval.page.leaderboard import leaderboard
from apps.eval.page.parts import asset
from apps.eval.page.published import published_tables


def render(figures: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The whole page as text; `found` is the evidence that its script shows."""
    models = list(figures["models"])
    body = [
        _header(figures),
        "<main>",
        sections.cards(figures),
        leaderboard(figures, models),
        sections.accuracy(figures, models),
        *(sections.protocol(name, figures, models) for name in figures["protocols"]),
        _questions(figures),
        published_tables(figures),
        sections.contamination(figures),
        sections.cost(figures),
        sections.manifest(figures),
        "</main>",
        f"<footer>Made by Cria, {escape(figures['created'])}. One file: keep it, mail it.</footer>",
    ]
    data = _data(found)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(figures['title'])}</title><style>{asset('page.css')}</style></head><body>"
        f'{"".join(body)}<script type="application/json" id="data">{data}</script>'
        f"<script>{asset('page.js')}</script></body></html>"
    )


def _header(figures: Mapping[str, Any]) -> str:
    labels = sorted({label for p in figures["protocols"].values() for label in p["judge_labels"]})
    count = figures["questions"]["total"]
    told = f"{count} questions, {len(figures['models'])} models, judged by {', '.join(labels)}."
    banner = ""
    if figures["is_offline_judge_used"]:
        banner = (
            f'<div class="banner"><b>Not GPT-4.</b> Judged by the {escape(LABEL)}. It tells right '
            "from wrong only as far as a reference answer does.</div>"
        )
    links = [("#top", "Summary")]
    if any(model["accuracy"] for model in figures["models"].values()):
        links.append(("#accuracy", "Accuracy"))
    links += [(f"#{name}", name) for name in figures["protocols"]]
    links += [("#all-questions", "Questions")]
    links += [("#cost", "Cost")] if figures["costs"] else []
    links += [("#manifest", "Manifest")]
    menu = "".join(f'<a href="{href}">{escape(text)}</a>' for href, text in links)
    return (
        '<header class="top" id="top">'
        '<button class="button theme" id="theme" aria-label="Switch light and dark">◐</button>'
        f'<h1>{escape(figures["title"])}</h1><p class="lead">{escape(told)} '
        f"{escape(figures['created'][:10])}.</p>{banner}<nav>{menu}</nav></header>"
    )


def _questions(figures: Mapping[str, Any]) -> str:
    options = "".join(
        f"<option>{escape(name)}</option>" for name in figures["questions"]["per_category"]
    )
    winners = '<option value="">any winner</option>' + "".join(
        f'<option value="{escape(name, quote=True)}">{escape(name)} wins</option>'
        for name in figures["models"]
    )
    return (
        '<h2 id="all-questions">Every question</h2>'
        '<p class="lead">Open one to read the answers side by side and what the judge said about '
        "them. The strip shows who won its judgments; the address bar keeps a link to it.</p>"
        '<div class="tools">'
        '<input id="search" type="search" placeholder="Search all texts (/)" '
        'aria-label="Search questions, answers and judgments">'
        '<select id="category" aria-label="Category">'
        f'<option value="">all categories</option>{options}</select>'
        '<select id="kind" aria-label="Kind"><option value="">all outcomes</option>'
        '<option value="split">orders disagree</option><option value="wrong">an answer is wrong'
        '</option><option value="flagged">suspicious answers</option>'
        '<option value="unread">unread judgments</option></select>'
        f'<select id="winner" aria-label="Preferred model">{winners}</select>'
        '<button class="button" id="unfold">Open all</button>'
        '<span class="note" id="count"></span></div><div id="questions"></div>'
    )


def _data(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    # Inside a script element only these can end or open anything.
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
