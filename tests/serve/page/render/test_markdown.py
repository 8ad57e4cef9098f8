import re
import time

import pytest

from apps.serve.page.render.markdown import blocks, to_html
from tests.serve.page.talk import GOOD, HOSTILE, OTHER

TAGS = re.compile(r"<([a-z0-9]+)([^>]*)>")
# fmt: off
HARMLESS = {
    "a", "blockquote", "br", "code", "del", "div", "em", "h3", "h4", "h5", "h6", "hr", "li",
    "ol", "p", "pre", "s", "span", "strong", "ul", "table", "tbody", "td", "th", "thead",
    "tr", "math", "mfrac", "mi", "mn", "mo", "mrow", "mspace", "msup", "mtext",
}
# fmt: on


def test_a_hostile_answer_becomes_text_and_links() -> None:
    html = to_html(HOSTILE)
    found = TAGS.findall(html)
    assert {tag for tag, _ in found} <= HARMLESS
    attributes = " ".join(attributes for _, attributes in found)
    assert not re.search(r"\b(?:style|src|srcset|on\w+|action|poster|background|id)=", attributes)
    links = re.findall(r'href="([^"]*)"', html)
    assert links and all(link.startswith("http://hostile.example") for link in links)
    assert all('rel="noopener noreferrer nofollow ugc"' in a for t, a in found if t == "a")


def test_a_link_leads_to_another_page_or_stays_text() -> None:
    for target in ("javascript:alert(1)", "data:text/html,x", "/v1/models", "//x.example", "?a=b"):
        assert "<a" not in to_html(f"[x]({target})"), target
        assert "<a" not in to_html(f"![x]({target})"), target
    assert 'href="https://x.example/"' in to_html("[x](https://x.example/)")


def test_tags_in_prose_stay_text() -> None:
    html = to_html("A `<div>` and a <div> end with </s> or <|im_end|>.")
    assert "&lt;div&gt; end with &lt;/s&gt; or &lt;|im_end|&gt;" in html


@pytest.mark.parametrize(
    "latex",
    [
        *("$x^2$", r"\(x^2\)", "$$x^2$$", r"\[x^2\]"),
        *("\n$$\nx^2\n$$\n", "\n\\[\nx^2\n\\]\n", "\n\\begin{align}\nx^2&=y\n\\end{align}\n"),
    ],
)
def test_formulas_in_every_usual_delimiter_become_mathml(latex: str) -> None:
    html = to_html(f"See {latex} here.")
    assert "<msup><mi>x</mi><mn>2</mn></msup>" in html


@pytest.mark.parametrize(
    "prose", ["It costs $5 to $10.", "US$5 and US$6, or $7/$8", "$ 5 is less than $6", "a $5, b $6"]
)
def test_prices_are_not_formulas(prose: str) -> None:
    assert to_html(prose) == f'<div dir="auto"><p>{prose}</p>\n</div>'


def test_a_formula_that_is_no_latex_is_shown_as_written() -> None:
    assert r"<code>\frac{</code>" in to_html(r"$\frac{$")
    assert "<code>" in to_html("$" + "{" * 80 + "x" + "}" * 80 + "$")


def test_code_is_coloured_by_class_and_mermaid_is_code() -> None:
    html = to_html('```python\nx = "<b>"\n```\n\n```mermaid\ngraph TD\n```')
    assert '<span class="hl-n">x</span>' in html and "&lt;b&gt;" in html
    assert '<div class="code-name">mermaid</div><pre><code>graph TD' in html


def test_tables_and_tasks_are_drawn() -> None:
    html = to_html(OTHER)
    assert '<td class="align-right">470 nm</td>' in html
    assert '<li class="task">☑ Look up at noon' in html and "☐ Look up at dusk" in html
    assert "[x] no task" in to_html("[x] no task") and "task" not in to_html("- **b**\n\n[ ] x")


def test_a_growing_answer_changes_its_last_blocks_only() -> None:
    shown: list[str] = []
    changed = 0
    for end in range(40, len(GOOD), 40):
        now = blocks(GOOD[:end])
        changed += sum(a != b for a, b in zip(shown[:-2], now, strict=False))
        shown = now
    assert len(shown) == 4 and changed == 0


def test_no_text_holds_the_page_up() -> None:
    for text in (
        "> " * 5000,
        "[" * 20_000,
        "*a " * 10_000,
        "$a" * 20_000,
        r"\(" * 8_000,
        "![" * 9_000,
    ):
        start_s = time.monotonic()
        blocks(text)
        assert time.monotonic() - start_s < 30, text[:10]  # a hang, not a figure
