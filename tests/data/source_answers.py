"""Seeded answers that talk about HTML, XML, JSX, TeX and Markdown: source that nobody rendered.

Many open with a tag, as the saved pages of a chat do. Every one must come out as it went in.
"""

import random
from collections.abc import Callable, Iterator

from tests.data.corpus import WORDS

_BLOCKS = ["p", "div", "ul", "ol", "h1", "h2", "h3", "table", "blockquote", "pre"]
_HTML = [
    '<div class="{0}">\n  <h1>{1}</h1>\n  <a href="/{2}">{3}</a>\n</div>',
    '<!DOCTYPE html>\n<html lang="en">\n<head><title>{0}</title></head>\n<body>\n<p>{1}</p>\n'
    "</body>\n</html>",
    '<ul id="{0}">\n<li>{1}</li>\n<li>{2}</li>\n</ul>',
    '<table border="1">\n<tr><td>{0}</td><td>{1}</td></tr>\n</table>',
    '<p style="color: red">{0} &amp; {1}</p>',
    '<form action="/{0}" method="post">\n  <input name="{1}">\n  <button>{2}</button>\n</form>',
    "<h1>{0}</h1>\n<script>\nif (a < b && c > d) {{ alert('{1}'); }}\n</script>",
    '<div align="center">\n\n# {0}\n\n{1} {2}\n\n</div>',
    "<details>\n<summary>{0}</summary>\n\n```html\n<p>{1}</p>\n```\n\n</details>",
]
_XML = [
    '<?xml version="1.0"?>\n<{0}>\n  <{1} id="1">{2}</{1}>\n</{0}>',
    "<{0}><{1}/></{0}>",
    '<svg width="10" height="10"><circle cx="5" cy="5" r="4"/></svg>',
    '<xs:element name="{0}" type="xs:string"/>',
]
_JSX = [
    'function {0}() {{\n  return (\n    <div className="{1}">\n      {{items.map((x) => '
    "<li key={{x}}>{{x}}</li>)}}\n    </div>\n  );\n}}",
    "<Provider store={{store}}>\n  <App {0}={{1 < 2}} />\n</Provider>",
    '<template>\n  <p v-if="a < b">{{{{ {0} }}}}</p>\n</template>',
]
_TEX = [
    r"\begin{{align}} {0}_1 &< {1}_2 \\ &\leq 3 \end{{align}}",
    "$$\na < b > c \\quad x_{{i}}\n$$",
    "\\documentclass{{article}}\n% {0} <{1}>\n\\[ x < y \\]",
]
_MARKDOWN = [
    "# {0}\n\n* {1}\n+ {2}\n\n1) {3}",
    "| {0} | {1} |\n|:--|--:|\n| a\\|b | <br> |",
    "> {0}\n> > {1} &lt;b&gt;\n\n***\n\n[{2}]: <http://example.com>",
    "{0}  \n{1}\\\n\\*{2}\\* \\_x\\_ `` `{3}` ``",
    "~~~\n<{0}>\n~~~",
]
_FENCES = {"html": _HTML, "xml": _XML, "jsx": _JSX, "tex": _TEX, "markdown": _MARKDOWN}
_SAID = [
    "<{tag}>{0}</{tag}> is how you write a {1} in HTML. It closes with </{tag}>.",
    "<{tag}> opens the {0}, and </{tag}> ends the {1}.",
    "<{tag}> is for {0}; put <{other}> around the {1}.",
    "Use `<{tag}>` for {0} and <{other}> for {1} < {2}.",
    "In TeX you write $a < b$ and \\({0} > {1}\\); {2} &amp; {3}.",
    "The {0} tag is <{tag}>, not <{other}>.",
    "**Note:** {0} &nbsp; {1} <!-- {2} -->",
]


class Source:
    """Draws one answer after another."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)

    def filled(self, template: str) -> str:
        tag, other = self.draw.sample(_BLOCKS, 2)
        return template.format(*self.draw.choices(WORDS, k=4), tag=tag, other=other)

    def said(self) -> str:
        return self.filled(self.draw.choice(_SAID))

    def prose(self) -> str:
        return " ".join(self.draw.choices(WORDS, k=self.draw.randint(5, 25))).capitalize() + "."

    def fence(self) -> str:
        language = self.draw.choice(list(_FENCES))
        marks = "````" if language == "markdown" else "```"
        return f"{marks}{language}\n{self.filled(self.draw.choice(_FENCES[language]))}\n{marks}"

    def bare(self) -> str:
        """Source as the whole answer or between its paragraphs, without a fence."""
        return self.filled(self.draw.choice(self.draw.choice(list(_FENCES.values()))))

    def rendered_by_hand(self) -> str:
        """Looks most like a page, but for the fence or sentence after it."""
        after = self.draw.choice([self.fence, self.prose, self.said])()
        tag, text = self.draw.choice(_BLOCKS), self.prose()
        return f"<{tag}>{text}</{tag}>\n\n{after}"

    def answer(self) -> str:
        kinds: list[Callable[[], str]] = [
            self.said,
            self.prose,
            self.fence,
            self.bare,
            self.rendered_by_hand,
        ]
        parts = [kind() for kind in self.draw.choices(kinds, k=self.draw.randint(1, 4))]
        return self.draw.choice(["\n\n", "\n"]).join(parts)


def answers(count: int, *, seed: int = 0) -> Iterator[str]:
    source = Source(seed)
    for _ in range(count):
        yield source.answer()
