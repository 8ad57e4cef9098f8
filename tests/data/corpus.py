"""A seeded corpus of chat messages: ChatGPT page HTML, and the Markdown it was rendered from.

Drawn as document trees: paragraphs with emphasis, code spans, links and TeX; nested lists with
start numbers; tables; quotes; code blocks in the five markups of 2023-24. Generator and converter
have one author, so read the scores of single facts (code text, list items...), not only equality.
"""

import html
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_WORDS = """\
the of and to in is that for it as with on by this are from or an be at which have not can
also more other when use such only some time they most these two may then its into first
new many used system number each data between different while however because through
after water example value process important energy change part form large small high world
state result following point order means using based simple question answer model function
line level common work problem method user several language text file test class code
object server request memory table column value range index error return input output
string array loop condition variable module library package version build deploy network
client response cache thread task queue event message record field key price cost market
company product service customer project team plan goal history century country city
people language culture music film book story character theory experiment temperature
pressure surface chemical reaction cell protein plant animal species climate ocean river
mountain island forest food recipe flour sugar butter oven garlic onion pepper simmer
morning evening weekend travel ticket hotel museum coffee breakfast"""
WORDS = _WORDS.split()
LANGUAGES = ["python", "javascript", "bash", "sql", "cpp", "java", "html", "css", "json", "rust"]
TEX = [
    r"x_i < 3",
    r"\frac{a}{b}",
    r"\sum_{i=1}^{n} i^2",
    r"e^{i\pi} + 1 = 0",
    r"\alpha \cdot \beta",
]
QUESTIONS = [
    "How do I {} the {} in my {}? I tried `{}_{}` but if (a<b && c>d) it fails with <{}>.",
    "Explain {} {} like I am five.\n    def {}(x):\n        return x * {}\n\n\nWhat is wrong?",
    "Write a short text about the {} and the {} of {} {}, please: {} {}",
    "What is the difference between {} and {}? See #include <{}> and std::vector<{}> v_{}; {}",
]


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    raw: str
    """As the dump has it."""
    markdown: str
    """What it was rendered from; the raw text itself for users."""
    is_broken: bool = False


class Writer:
    """Draws trees; every method returns (HTML, Markdown) of one thing."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)

    def words(self, low: int, high: int) -> str:
        return " ".join(self.draw.choices(WORDS, k=self.draw.randint(low, high)))

    def sentence(self) -> str:
        text = self.words(6, 18)
        return text[0].upper() + text[1:] + self.draw.choice([".", ".", ".", "!", ":"])

    def text(self) -> tuple[str, str]:
        text = self.sentence()
        if self.draw.random() < 0.08:
            text += self.draw.choice(
                [" a < b & c > d.", ' He said "yes" & left.', " 3 * 4 = 12_000."]
            )
        return html.escape(text, quote=False), text

    def inline(self) -> tuple[str, str]:
        kind = self.draw.random()
        word = self.words(1, 3)
        if kind < 0.3:
            return f"<strong>{word}</strong>", f"**{word}**"
        if kind < 0.45:
            return f"<em>{word}</em>", f"*{word}*"
        if kind < 0.8:
            code = self.draw.choice(
                ["x_y", "a < b", "__init__", "foo(bar)", "x  y", "ls -la", "i++"]
            )
            return f"<code>{html.escape(code, quote=False)}</code>", f"`{code}`"
        if kind < 0.92:
            url = f"https://example.com/{word.replace(' ', '_')}?a=1&b=2"
            link = f'<a href="{html.escape(url)}" target="_new">{word}</a>'
            return link, f"[{word}]({url})"
        tex = self.draw.choice(TEX)
        return f'<span class="math math-inline">{self.katex(tex)}</span>', f"${tex}$"

    def katex(self, tex: str) -> str:
        shown = html.escape(tex, quote=False)
        return (
            '<span class="katex"><span class="katex-mathml"><math><semantics><mi>x</mi>'
            f'<annotation encoding="application/x-tex">{shown}</annotation></semantics></math>'
            "</span>"
            '<span class="katex-html" aria-hidden="true"><span class="base"><span class="strut">'
            '</span><span class="mord mathnormal">x</span></span></span></span>'
        )

    def run(self, sentences: int) -> tuple[str, str]:
        parts = []
        for _ in range(self.draw.randint(1, sentences)):
            parts.append(self.text())
            if self.draw.random() < 0.35:
                parts.append(self.inline())
        return " ".join(part[0] for part in parts), " ".join(part[1] for part in parts)

    def paragraph(self) -> tuple[str, str]:
        page, source = self.run(4)
        return f"<p>{page}</p>", source

    def heading(self) -> tuple[str, str]:
        level, text = self.draw.randint(1, 4), self.words(2, 6).title()
        return f"<h{level}>{text}</h{level}>", f"{'#' * level} {text}"

    def quote(self) -> tuple[str, str]:
        parts = [self.paragraph() for _ in range(self.draw.randint(1, 2))]
        page = "".join(part[0] for part in parts)
        source = "\n>\n".join("> " + part[1] for part in parts)
        return f"<blockquote>\n{page}\n</blockquote>", source

    def rule(self) -> tuple[str, str]:
        return "<hr>", "---"

    def display(self) -> tuple[str, str]:
        tex = self.draw.choice(TEX)
        page = f'<span class="katex-display">{self.katex(tex)}</span>'
        return f'<div class="math math-display">{page}</div>', f"$$\n{tex}\n$$"

    def table(self) -> tuple[str, str]:
        width = self.draw.randint(2, 4)
        head = [self.words(1, 2) for _ in range(width)]
        rows = [[self.words(1, 4) for _ in range(width)] for _ in range(self.draw.randint(2, 5))]
        cells = "".join(f"<th>{cell}</th>" for cell in head)
        body = "".join(
            "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows
        )
        page = f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
        lines = [head, ["---"] * width, *rows]
        return page, "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def list(self, depth: int = 0) -> tuple[str, str]:
        ordered, loose = self.draw.random() < 0.5, depth == 0 and self.draw.random() < 0.3
        number = self.draw.choice([1, 1, 1, 3]) if ordered else 0
        tag = "ol" if ordered else "ul"
        start = f' start="{number}"' if ordered and number != 1 else ""
        page, items = [f"<{tag}{start}>"], []
        for _ in range(self.draw.randint(2, 5)):
            marker = f"{number}. " if ordered else "- "
            shown, source = self.run(1)
            blocks, inner = [source], f"<p>{shown}</p>" if loose else shown
            if depth < 2 and self.draw.random() < 0.15:
                nested = self.list(depth + 1) if self.draw.random() < 0.7 else self.code()
                inner += nested[0]
                blocks.append(nested[1])
            page.append(f"<li>{inner}</li>")
            body = ("\n\n" if loose else "\n").join(blocks).split("\n")
            pad = " " * len(marker)
            items.append("\n".join([marker + body[0], *(pad + b if b else "" for b in body[1:])]))
            number += 1
        return "".join([*page, f"</{tag}>"]), ("\n\n" if loose else "\n").join(items)

    def code_text(self) -> str:
        lines = []
        for i in range(self.draw.randint(2, 14)):
            indent = "    " * (0 if i == 0 else self.draw.randint(0, 3))
            lines.append(
                indent
                + self.draw.choice(
                    [
                        f"def {self.draw.choice(WORDS)}_{i}(self, x: int) -> list[int]:",
                        f"if {self.draw.choice(WORDS)} < {i} && y > 3:",
                        f"return x_{i} ** 2  # {self.words(2, 5)}",
                        f'print("{self.words(1, 3)} <b>&amp;</b>")',
                        "",
                        f'<div class="{self.draw.choice(WORDS)}">{self.words(1, 2)}</div>',
                    ]
                )
            )
        while lines and not lines[-1].strip():
            lines.pop()
        return "\n".join(lines) or "pass"

    def code(self) -> tuple[str, str]:
        language = self.draw.choice(LANGUAGES) if self.draw.random() < 0.85 else ""
        text = self.code_text()
        return MARKUPS[self.draw.randrange(len(MARKUPS))](self, language, text), (
            f"```{language}\n{text}\n```"
        )

    def highlighted(self, text: str) -> str:
        """Words in highlight.js spans, as the page has them."""
        kinds = ["hljs-keyword", "hljs-title function_", "hljs-string", "hljs-number"]
        out = []
        for word in html.escape(text, quote=False).split(" "):
            if word.strip() and "\n" not in word and self.draw.random() < 0.35:
                word = f'<span class="{self.draw.choice(kinds)}">{word}</span>'
            out.append(word)
        return " ".join(out)

    def answer(self) -> tuple[str, str]:
        kinds: list[Callable[[], tuple[str, str]]] = [self.paragraph]
        weights = {
            self.paragraph: 8,
            self.heading: 1.5,
            self.list: 3,
            self.code: 3,
            self.table: 0.7,
            self.quote: 0.5,
            self.rule: 0.2,
            self.display: 0.4,
        }
        kinds += self.draw.choices(list(weights), list(weights.values()), k=self.draw.randint(1, 9))
        parts = [kind() for kind in _apart(kinds, self.list)]
        page = "".join(part[0] for part in parts)
        return page, "\n\n".join(part[1] for part in parts)


def _apart(kinds: list[Callable[[], tuple[str, str]]], block: object) -> list:  # type: ignore[type-arg]
    """No two lists in a row: in Markdown they would be one."""
    return [k for i, k in enumerate(kinds) if i == 0 or not (k == block and kinds[i - 1] == block)]


_ICON = (
    '<svg stroke="currentColor" fill="none" stroke-width="2" viewBox="0 0 24 24" class="h-4 w-4">'
    '<path d="M16 4h2a2 2 0 0 1 2 2v14"></path><rect x="8" y="2" width="8" height="4"></rect></svg>'
)


def _classes(language: str) -> str:
    return f"!whitespace-pre hljs language-{language}" if language else "!whitespace-pre hljs"


def _label_in_span(writer: Writer, language: str, text: str) -> str:
    return (
        '<pre><div class="bg-black rounded-md mb-4"><div class="flex items-center relative '
        f'text-gray-200 bg-gray-800 px-4 py-2 text-xs"><span>{language}</span><button '
        f'class="flex ml-auto gap-2">{_ICON}Copy code</button></div><div class="p-4 overflow-auto">'
        f'<code class="{_classes(language)}">{writer.highlighted(text)}\n</code></div></div></pre>'
    )


def _no_label(writer: Writer, language: str, text: str) -> str:
    return (
        '<pre><div class="bg-black mb-4 rounded-md"><div class="flex items-center"><button '
        f'class="flex ml-auto gap-2">{_ICON}Copy code</button></div><div class="p-4">'
        f'<code class="{_classes(language)}">{writer.highlighted(text)}\n</code></div></div></pre>'
    )


def _without_pre(writer: Writer, language: str, text: str) -> str:
    return (
        '<div\n class="bg-black rounded-md [&>li]:mt-2"><div class="flex items-center"><span '
        f'class="">{language}</span><button class="flex">{_ICON}Copy code</button></div><div '
        f'class="p-4"><code class="{_classes(language)}">{writer.highlighted(text)}\n'
        "</code></div></div>"
    )


def _label_in_bar(writer: Writer, language: str, text: str) -> str:
    return (
        '<pre class="!overflow-visible"><div class="dark bg-gray-950 rounded-md">'
        f'<div class="flex items-center text-xs">{language}<div class="flex"><span data-x="closed">'
        f'<button class="flex gap-1">{_ICON}Copy code</button></span></div></div><div '
        f'class="overflow-y-auto p-4" dir="ltr"><code class="{_classes(language)}">'
        f"{writer.highlighted(text)}\n</code></div></div></pre>"
    )


def _plain(writer: Writer, language: str, text: str) -> str:
    del writer
    of = f' class="language-{language}"' if language else ""
    return f"<pre><code{of}>{html.escape(text, quote=False)}\n</code></pre>"


MARKUPS = [_label_in_span, _no_label, _without_pre, _label_in_bar, _plain]
_WRAPPERS = [
    '<div class="markdown prose w-full break-words dark:prose-invert dark">{}</div>',
    '<div class="markdown prose w-full break-words dark:prose-invert light">\n{}\n</div>',
    "{}",
]


def messages(count: int, *, seed: int = 0, broken: float = 0.07) -> Iterator[Message]:
    """User and assistant messages in turn."""
    writer = Writer(seed)
    for i in range(count):
        if i % 2 == 0:
            template = writer.draw.choice(QUESTIONS)
            text = template.format(*writer.draw.choices(WORDS, k=template.count("{}")))
            yield Message("user", text, text)
            continue
        page, source = writer.answer()
        raw = writer.draw.choice(_WRAPPERS).format(page)
        is_broken = writer.draw.random() < broken
        if is_broken:
            raw = raw[: writer.draw.randint(len(raw) // 2, len(raw) - 1)]
        yield Message("assistant", raw, source, is_broken)


def conversations(
    count: int, *, seed: int = 0, broken: float = 0.02
) -> Iterator[dict[str, object]]:
    """Raw ShareGPT records with 1 to 6 rounds."""
    draw = random.Random(seed)
    for i in range(count):
        turns = [
            {"from": "human" if m.role == "user" else "gpt", "value": m.raw}
            for m in messages(2 * draw.randint(1, 6), seed=draw.getrandbits(48), broken=broken)
        ]
        yield {"id": f"{draw.getrandbits(40):x}_{i}", "conversations": turns}
