"""What a page rendered is told from what people write about HTML, by the whole message."""

import html
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.data.html.detect import is_html
from apps.data.html.to_markdown import to_markdown
from tests.data import corpus, source_answers
from tests.data.commands import conversation, rows_of, run_clean, write_dump

PAGES = {
    "wrapper": '<div class="markdown prose w-full dark"><p>a</p></div>',
    "old wrapper": '<div class="markdown"><p>It is <b>bold</b>.</p></div>',
    "said before the wrapper": 'Sure!<div class="markdown prose"><p>Use <code>b</code>.</p></div>',
    "no wrapper": "<p>An answer.</p>\n<ul>\n<li>one</li>\n<li>two</li>\n</ul>",
    "counter": "1 / 2<p>An answer</p>",
    "counter in a box": "<div>1 / 2</div><p>a</p>",
    "cut off": "<p>a</p><p>b is <stro",
    "cut off in a list": "<p>a</p><ol><li>b</li><li>c",
    "code": '<p>a</p><pre><code class="language-python">if a:\n    b\n\nc\n</code></pre>',
    "table": '<table><tr><th align="right">a</th><td style="text-align:left">b</td></tr></table>',
    "link": '<p>See <a href="https://a.b/c?d=1" target="_new">this</a>.</p>',
    "formula": '<p>a <span class="katex"><span class="x y">b</span></span></p>',
    "Tailwind in a page": (
        '<div class="mb-4 [&>li]:mt-2"><code class="!whitespace-pre hljs">x</code></div>'
    ),
}
SOURCES = {
    "a card": '<div class="card">\n  <h1>Welcome</h1>\n  <a href="/a">Go</a>\n</div>',
    "a card on one line": '<div class="card"><h1>Welcome</h1><a href="/a">Go</a></div>',
    "talk": "<p>Hello</p> is how you write a paragraph in HTML. It closes with </p>.",
    "talk about one tag": "<p> is a paragraph.",
    "talk about two tags": "<h1>Big</h1>\n<p> is for text.",
    "talk on the next line": "<ul> and <ol> make lists.\nBoth hold <li>.",
    "source, then a fence": "<table>\n<tr><td>1</td></tr>\n</table>\n\n```html\n<b>x</b>\n```",
    "a heading, then a fence": "<h2>Config</h2>\n\n```xml\n<a>\n  <b>x</b>\n</a>\n```",
    "a whole page": "<div><!DOCTYPE html><html><body><p>a</p></body></html></div>",
    "a form": '<div><form action="/x"><input name="a"></form></div>',
    "GitHub's README": '<div align="center">\n\n# Title\n\n</div>',
    "a component": "<div>\n  <App items={a < b} />\n</div>",
    "a script": "<p>a</p><script>if (a < b) {}</script>",
    "XML": "<p:root><p:a>1</p:a></p:root>",
    "Tailwind": '<div class="bg-black rounded-md p-4"><p>a</p></div>',
    "wrong order": "<p><b>a</p></b>",
    "text in a list": "<ol> is for steps; <ul> for the others.</ol>",
    "JSX": '<div className="a"><Button onClick={() => go()}>Go</Button></div>',
    "JSX of lower-case tags": "<div>{items.map(i => <p>{i}</p>)}</div>",
    "JSX with a fragment": "<p>a</p><><p>b</p></>",
    "PHP": "<div><?php echo $x; ?></div>",
    "short PHP": "<p>Hello <?= $name ?>, welcome back</p>",
    "ERB": "<ul><% xs.each do |x| %><li>x</li><% end %></ul>",
    "Vue": '<p v-if="ok">a</p><p v-else>b</p>',
    "Vue's short forms": '<p :key="a" @click="go">b</p>',
    "Angular": '<p [hidden]="a">b</p>',
    "Angular of old": '<p ng-bind="x"></p><p>y</p>',
    "a plain box": "<div>\n<p>a</p>\n</div>",
    "a plain box on one line": "<div><p>a</p></div>",
    "a plain box inside": "<p>a</p>\n<div>\n<p>b</p>\n</div>",
    "no tag first": "Use `<p>` for paragraphs: <p>like this</p>",
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_known(name: str) -> None:
    assert is_html(PAGES[name], by_assistant=True)


@pytest.mark.parametrize("name", SOURCES)
def test_source_is_no_page(name: str) -> None:
    assert not is_html(SOURCES[name], by_assistant=True)


def test_what_people_typed_is_a_page_only_in_the_wrapper_of_their_messages() -> None:
    assert not is_html('<div class="container"><p>Why?</p></div>', by_assistant=False)
    assert not is_html("#include <vector>\nif (a<b) {", by_assistant=False)
    wrapped = '<div class="whitespace-pre-wrap break-words">a &lt; b\n  c</div>'
    assert is_html(wrapped, by_assistant=False)
    assert to_markdown(wrapped) == "a < b\n  c"


def test_every_drawn_page_is_known_whole_or_cut_off() -> None:
    answers = [m for m in corpus.messages(600, seed=9) if m.role == "assistant"]
    assert [m.raw for m in answers if not is_html(m.raw, by_assistant=True)] == []
    assert [m.markdown for m in answers if is_html(m.markdown, by_assistant=True)] == []


def test_two_thousand_answers_about_source_are_no_pages() -> None:
    answers = source_answers.answers(2000, seed=2)
    assert [text for text in answers if is_html(text, by_assistant=True)] == []


PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]) | st.just(" "), max_size=80)


@settings(max_examples=300, deadline=None)
@given(st.lists(PLAIN.map(lambda text: " ".join(text.split(" "))), min_size=1, max_size=5))
def test_text_that_renders_to_itself_comes_back(lines: list[str]) -> None:
    paragraphs = [line for line in (" ".join(line.split()) for line in lines) if line]
    page = "".join(f"<p>{html.escape(line, quote=False)}</p>" for line in paragraphs)
    text = "\n\n".join(paragraphs)
    assert to_markdown(page) == text or not paragraphs
    assert not is_html(f"So: {text}", by_assistant=True)


def test_what_would_leave_nothing_of_an_answer_stays_as_it_is(tmp_path: Path) -> None:
    shown = "<div>\n<button>Save it</button>\n<svg></svg>\n</div>"
    pages = {"button": shown, "label": "<div><button>Copy code</button></div>", "blank": "<p></p>"}
    records = [conversation(name, "How do I do that?", page) for name, page in pages.items()]
    run_clean(tmp_path / "out", write_dump(tmp_path / "dump.json", records), profile="none")
    rows = rows_of(tmp_path / "out")
    assert [row["messages"][1]["content"] for row in rows] == [shown, "", ""]


def test_html_that_was_asked_for_is_no_page(tmp_path: Path) -> None:
    listed = "<ul>\n<li>one</li>\n<li>two</li>\n</ul>"
    talk = "<p>HTML has tags.</p>\n<p>A list is one.</p>"
    shown = "<p>Use a tag:</p><p><code>&lt;b&gt;</code></p>"
    classes = '<p>a</p><pre><code class="hljs">x</code></pre>'
    asked = "Write the list in HTML, please."
    records = [conversation(f"{i}", asked, text) for i, text in enumerate((listed, talk, shown))]
    records += [conversation("a", asked, classes), conversation("b", "Which are there?", listed)]
    run_clean(tmp_path / "out", write_dump(tmp_path / "dump.json", records), profile="none")
    answers = [row["messages"][1]["content"] for row in rows_of(tmp_path / "out")]
    assert answers[0] == listed and answers[4] == "- one\n- two"
    assert not any("<p>" in text for text in answers[1:])


def test_a_user_decides_for_all_answers(tmp_path: Path) -> None:
    page, source = "<p>a &amp; <b>c</b></p>", "<p>b</p> is a paragraph.\n\n```html\n<i>x</i>\n```"
    records = [
        conversation("page", "What is the first one of these?", page),
        conversation("source", "How do I write a <p>paragraph</p>?", source),
        conversation("plain", "What is x < y in mathematics?", "x is less than  y."),
    ]
    dump = write_dump(tmp_path / "dump.json", records)
    answers: dict[str, list[str]] = {}
    for html_setting in ("auto", "always", "never"):
        run_clean(tmp_path / html_setting, dump, html=html_setting)
        rows = rows_of(tmp_path / html_setting)
        assert rows[1]["messages"][0]["content"] == "How do I write a <p>paragraph</p>?"
        answers[html_setting] = [row["messages"][1]["content"] for row in rows]
    plain = "x is less than  y."
    assert answers["auto"] == ["a & **c**", source, plain]
    assert answers["never"] == [page, source, plain]
    walked = "b\n\nis a paragraph.\n\n```html\n<i>x</i>\n```"
    assert answers["always"] == ["a & **c**", walked, plain]
