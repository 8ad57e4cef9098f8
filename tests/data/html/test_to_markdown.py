"""HTML of the ChatGPT page becomes the Markdown that it was rendered from."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.data.html.detect import HtmlRefused
from apps.data.html.to_markdown import to_markdown
from tests.data import corpus


def test_unbroken_pages_give_back_their_source_exactly() -> None:
    answers = [m for m in corpus.messages(400, seed=3) if m.role == "assistant" and not m.is_broken]
    assert len(answers) > 150
    differing = [m.markdown for m in answers if to_markdown(m.raw) != m.markdown]
    assert differing == []


CASES = {
    "entities": ("<p>a &lt; b &amp;&amp; c&nbsp;&gt; d</p>", "a < b && c\u00a0> d"),
    "no escapes": ("<p>my_var * 2 [x] #1 1. a</p>", "my_var * 2 [x] #1 1. a"),
    "line break": ("<p>a<br>b</p>", "a\nb"),
    "line break before a line end": ("<p>a<br>\nb<strong>c<br>\n d</strong></p>", "a\nb**c\nd**"),
    "line break in an item": ("<ul><li>a<br>\nb</li></ul>", "- a\n  b"),
    "two line breaks": ("<p>a<br>\n<br>\nb</p>", "a\n\nb"),
    "soft line end": ("<p>a\nb</p>", "a\nb"),
    "emphasis blanks": ("<p>a<strong> b </strong>c</p>", "a **b** c"),
    "autolink": ('<p><a href="https://a.b/c">https://a.b/c</a></p>', "https://a.b/c"),
    "address with brackets": ('<p><a href="u_(x)">[1]</a></p>', "[[1]](u_(x))"),
    "address with half a bracket": ('<p><a href="u)">a</a></p>', "[a](<u)>)"),
    "address with a blank": ('<p><a href="u v">a</a></p>', "[a](<u v>)"),
    "image": ('<p><img src="u.png" alt="A b"></p>', "![A b](u.png)"),
    "code span with backtick": ("<p><code>x = `y`</code></p>", "`` x = `y` ``"),
    "fence inside code": ("<pre><code>```\nx\n```</code></pre>", "````\n```\nx\n```\n````"),
    "blank lines in code": ("<pre><code>a\n\n\n  b\n</code></pre>", "```\na\n\n\n  b\n```"),
    "br in code": ("<pre><code>a<br>  b</code></pre>", "```\na\n  b\n```"),
    "pipe in cell": ("<table><tr><th>a|b</th></tr></table>", "| a\\|b |\n| --- |"),
    "alignment": (
        '<table><tr><th align="right">a</th><th style="text-align:center">b</th></tr></table>',
        "| a | b |\n| ---: | :---: |",
    ),
    "list start": ('<ol start="3"><li>a</li><li>b</li></ol>', "3. a\n4. b"),
    "list value": ('<ol><li value="7">a</li><li>b</li></ol>', "7. a\n8. b"),
    "loose list": ("<ul><li><p>a</p></li><li><p>b</p></li></ul>", "- a\n\n- b"),
    "list in list": (
        "<ol><li>a<ul><li>b<ul><li>c</li></ul></li></ul></li></ol>",
        "1. a\n   - b\n     - c",
    ),
    "list directly in list": ("<ul><li>a</li><ul><li>b</li></ul></ul>", "- a\n  - b"),
    "code in list": (
        "<ol><li><p>a</p><pre><code>x\n\ny</code></pre></li></ol>",
        "1. a\n\n   ```\n   x\n\n   y\n   ```",
    ),
    "task list": ('<ul><li><input type="checkbox" checked> a</li></ul>', "- [x] a"),
    "quote": ("<blockquote><p>a</p><p>b</p></blockquote>", "> a\n>\n> b"),
    "counter": ("<div>1 / 2</div><p>a</p>", "a"),
    "no counter": ("<p>3 / 4 of people agree</p>", "3 / 4 of people agree"),
    "word count": ("<p>a</p><p>Copy12 chars / 3 words</p>", "a"),
    "button": ("<p>a</p><button>Copy code</button><svg><path/></svg>", "a"),
    "mathjax": ('<p><script type="math/tex">x_1</script></p>', "$x_1$"),
    "mathjax without its script": ('<p><span class="MathJax">x+1</span></p>', "x+1"),
    "mathjax 3": (
        '<p><mjx-container display="true"><mjx-math><mjx-mi></mjx-mi></mjx-math>'
        "<mjx-assistive-mml><math><mi>x</mi></math></mjx-assistive-mml></mjx-container></p>",
        "x",
    ),
    "mathjax 4": ('<p><mjx-container><mjx-math data-latex="x_1"/></mjx-container></p>', "$x_1$"),
    "bard's formula": ('<p>a <span class="math-inline" data-math="x_1">x1</span></p>', "a $x_1$"),
    "mathml": ('<p><math alttext="x_1"><mi>x</mi></math></p>', "$x_1$"),
    "powers": ("<p>x<sup>2</sup> and H<sub>2</sub>O</p>", "x<sup>2</sup> and H<sub>2</sub>O"),
    "citation": ('<p>a<sup>[<a href="u">1</a>]</sup></p>', "a[[1](u)]"),
    "emphasis around blocks": ("<p>0</p><b><p>a</p><p>b</p></b>", "0\n\n**a**\n\n**b**"),
    "blocks in a cell": (
        "<table><tr><th>a</th></tr><tr><td><p>x</p><p>y<br>z</p></td></tr></table>",
        "| a |\n| --- |\n| x<br>y<br>z |",
    ),
    "lines in a cell": (
        "<table><tr><td>x<br>y<ul><li>i</li><li>j</li></ul></td><td>a\nb</td></tr></table>",
        "| x<br>y<br>- i<br>- j | a b |\n| --- | --- |",
    ),
    "code in a cell": (
        "<table><tr><td><pre><code>x\n\n  y|`z`\n</code></pre></td></tr></table>",
        "| `x`<br>``   y\\|`z` `` |\n| --- |",
    ),
    "fenced code between tags": (
        "<p>a</p>\n```html\n<p>b</p>\n\n<i>c\n```\n<p>d</p>",
        "a\n\n```html\n<p>b</p>\n\n<i>c\n```\n\nd",
    ),
    "a fence in a pre": (
        "<pre><code>a\n```\n&lt;b&gt;\n```\n</code></pre>",
        "````\na\n```\n<b>\n```\n````",
    ),
    "table in a table": (
        "<table><tr><td>a<table><tr><td>i</td></tr></table></td><td>b</td></tr></table>",
        "| a i | b |\n| --- | --- |",
    ),
    "caption": ("<table><caption>C</caption><tr><th>a</th></tr></table>", "C\n\n| a |\n| --- |"),
    "several codes in one block": ("<pre><code>a</code><code>b</code></pre>", "```\na\nb\n```"),
    "text around code": ("<pre>let <code>x</code> = 1</pre>", "```\nlet x = 1\n```"),
    "a div a line": ("<pre><code><div>a</div><div>b</div></code></pre>", "```\na\nb\n```"),
    "br in a code span": ("<p><code>a<br>b</code></p>", "`a b`"),
    "text outside of items": ("<ul>a<li>b</li><p>c</p></ul>", "a\n- b\nc"),
    "numbers that Markdown has not": ('<ol start="-3"><li>a</li></ol>', "1. a"),
    "for screen readers only": ('<h5 class="sr-only">You said:</h5><p>a</p>', "a"),
    "a rounded box that is no code": (
        '<div class="rounded-md"><p>a</p><code class="hljs">b</code></div>',
        "a\n\n```\nb\n```",
    ),
    "katex without tex": (
        '<p><span class="katex"><span class="katex-html">x</span></span></p>',
        "x",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_markup_becomes_markdown(name: str) -> None:
    page, markdown = CASES[name]
    assert to_markdown(page) == markdown


@pytest.mark.parametrize("markup", corpus.MARKUPS)
def test_every_code_block_markup_keeps_code_and_language(markup: object) -> None:
    code = 'def f(x):\n\n    return "<b>&amp;</b>"  # a_b * c'
    page = markup(corpus.Writer(1), "python", code)  # type: ignore[operator]
    assert to_markdown(f"<p>So:</p>{page}") == f"So:\n\n```python\n{code}\n```"


def test_the_late_2024_code_block_keeps_its_language() -> None:
    page = (
        '<pre class="overflow-visible!"><div class="contain-inline-size rounded-2xl"><div '
        'class="flex h-9">c++</div><div class="sticky"><div class="flex"><span><button '
        'aria-label="Copy">Copy</button></span><span><button>Edit</button></span></div></div><div '
        'class="overflow-y-auto p-4" dir="ltr"><code class="whitespace-pre!"><span>int x;</span>\n'
        "</code></div></div></pre>"
    )
    assert to_markdown(page) == "```c++\nint x;\n```"


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("<div>" * 100_000, "html-too-deep"),
        ("<b><i>" * 20_000, "html-too-deep"),
        ("<ul><li>" * 2_000, "html-too-deep"),
        ("<p>" + "x" * (9 << 20), "html-too-long"),
    ],
    ids=["divs", "inline", "lists", "long"],
)
def test_what_would_crash_or_hang_is_refused_with_a_reason(page: str, reason: str) -> None:
    with pytest.raises(HtmlRefused) as refused:
        to_markdown(page)
    assert refused.value.reason == reason


def test_a_page_of_many_paragraphs_is_no_deep_tree() -> None:
    assert to_markdown("<p>x" * 3000).count("x") == 3000


def test_ten_thousand_broken_fragments_never_crash() -> None:
    draw = random.Random(5)
    pages = [m.raw for m in corpus.messages(120, seed=8) if m.role == "assistant"]
    pieces = [
        "<",
        ">",
        "</",
        "<!--",
        "]]>",
        '"',
        "&#x",
        "&lt",
        "\x00",
        "<pre>",
        "<li>",
        "</div>",
        "é",
    ]
    for _ in range(10_000):
        page = draw.choice(pages)
        start = draw.randrange(len(page))
        broken = page[start : start + draw.randint(1, 400)]
        at = draw.randrange(len(broken))
        text = to_markdown(broken[:at] + draw.choice(pieces) + broken[at:])
        assert isinstance(text, str)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.sampled_from("<>/&\"'= abdiploru\n`|*_#-1."), max_size=300))
def test_any_text_converts(text: str) -> None:
    to_markdown(text)
