"""ChatGPT-page HTML back to the Markdown it was rendered from, with Lexbor (selectolax).

Knows the code-block markups of 2023-24 (with and without <pre>, the label in a <span>, in the bar
itself or only in the class), KaTeX and MathJax, nested lists with their numbers, tables, and what
the page adds (buttons, icons, counters). Text is never backslash-escaped: a model would learn to
imitate it. The one exception is `|` inside a table cell, which Markdown itself demands.
"""

import re
from collections.abc import Callable, Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

MAX_BYTES = 8 << 20
"""A longer message is refused: 20 times the longest answer a chat page ever rendered."""
MAX_DEPTH = 200
"""Nested elements; pages reach about 30, and Lexbor's parse time grows with the square."""

_SMALL_TREE = 1000
"""Tags; so few parse fast however deep they nest."""

_HEAD = re.compile(r"\s*(?:\d+ / \d+\s*)?<(?:div|p|ol|ul|pre|h[1-6]|table|blockquote|hr)\b[^<]*>")
_WRAPPER = re.compile(
    r'\s*<div[^<>]{0,80}\bclass="[^"]*\b(?:markdown|whitespace-pre-wrap|break-words)\b'
)
_OPEN_OR_CLOSE = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9-]*)")
_EMPTY_TAGS = "area base br col embed hr img input link meta source track wbr"
_DRAWING_TAGS = "path circle rect line polyline polygon"
_CLOSED_BY_SUCCESSOR_TAGS = "p li td th tr dt dd option thead tbody tfoot"
_NOT_NESTING = frozenset(
    [*_EMPTY_TAGS.split(), *_DRAWING_TAGS.split(), *_CLOSED_BY_SUCCESSOR_TAGS.split()]
)
_SPACES = re.compile(r"[ \t\r\f]+")
_LINE_ENDS = re.compile(r" ?\n ?")
_LANGUAGE = re.compile(r"\blang(?:uage)?-([^\s\"']+)")
_LABEL = re.compile(r"[A-Za-z][\w+#.\-]{0,24}")
_COUNTER = re.compile(r"\d+ / \d+")
_WORD_COUNT = re.compile(r"Copy\d+ chars / \d+ words")
_COPY_TEXT = re.compile(r"(?:Copy code|Copy|Edit|Copied!)+$")
_BACKTICKS = re.compile(r"`+")
_SKIPPED_TAGS = """-comment button svg style script noscript template head title select textarea
iframe object audio video canvas mjx-assistive-mml"""
_SKIPPED = frozenset(_SKIPPED_TAGS.split())


class HtmlRefused(ValueError):
    """Too long or too deep; `reason` says which."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def is_html(text: str, *, by_assistant: bool) -> bool:
    """Whether a message is page markup, from its own content.

    An answer is when it starts with a block element, as exported ones do. People paste HTML and ask
    about it, so a user's text is only when the page's own message wrapper encloses all of it.
    """
    if "<" not in text:
        return False
    if by_assistant:
        return _HEAD.match(text) is not None
    return _WRAPPER.match(text) is not None and text.rstrip().endswith("</div>")


def to_markdown(html: str) -> str:
    """Raises HtmlRefused."""
    if len(html) > MAX_BYTES:
        raise HtmlRefused("html-too-long")
    if html.count("<") > _SMALL_TREE and _depth(html) > MAX_DEPTH:
        raise HtmlRefused("html-too-deep")
    root = LexborHTMLParser("<body>" + html, options=1).body
    if root is None:
        return ""
    try:
        blocks = _blocks(root)
    except RecursionError as error:
        raise HtmlRefused("html-too-deep") from error
    return "\n\n".join(_without_page_noise(blocks))


def _depth(html: str) -> int:
    depth = deepest = 0
    for closing, tag in _OPEN_OR_CLOSE.findall(html):
        if tag in _NOT_NESTING:
            continue
        depth = max(0, depth - 1) if closing else depth + 1
        deepest = max(deepest, depth)
    return deepest


def _without_page_noise(blocks: list[str]) -> list[str]:
    """Drop a leading regenerate counter ("1 / 2") and word counts that stand alone."""
    if len(blocks) > 1 and _COUNTER.fullmatch(blocks[0]):
        blocks = blocks[1:]
    return [block for block in blocks if not _WORD_COUNT.fullmatch(block)]


def _children(node: LexborNode) -> Iterator[tuple[LexborNode, str]]:
    child = node.first_child
    while child is not None:
        yield child, child.tag or ""
        child = child.next


def _text(text: str) -> str:
    """Runs of blanks become one; a line end stays, as the Markdown had it there."""
    if "  " in text or "\t" in text or "\r" in text:
        text = _SPACES.sub(" ", text)
    return _LINE_ENDS.sub("\n", text) if "\n" in text else text


def _blocks(node: LexborNode) -> list[str]:
    """The Markdown blocks of an element's children, to be joined by blank lines."""
    blocks: list[str] = []
    run: list[str] = []
    child = node.first_child
    while child is not None:
        tag = child.tag or ""
        if tag == "-text":
            run.append(_text(child.text_content or ""))
        elif (block := _BLOCK.get(tag)) is not None:
            _end_paragraph(run, blocks)
            blocks += block(child)
        elif tag not in _SKIPPED:
            if tag not in _INLINE and _holds_block(child):
                _end_paragraph(run, blocks)
                blocks += _blocks(child)
            else:
                piece = _inline_element(child, tag)
                if piece.startswith(("$$\n", "```")):
                    _end_paragraph(run, blocks)
                    blocks.append(piece)
                else:
                    run.append(piece)
        elif tag == "script":
            run.append(_mathjax(child))
        child = child.next
    _end_paragraph(run, blocks)
    return blocks


def _end_paragraph(run: list[str], blocks: list[str]) -> None:
    if run:
        if text := "".join(run).strip(" \n"):
            blocks.append(text)
        run.clear()


def _holds_block(node: LexborNode) -> bool:
    return any(tag in _BLOCK or _is_block_code(child, tag) for child, tag in _children(node))


def _inline(node: LexborNode) -> str:
    """The Markdown of an element's children, on one line but for line breaks."""
    first = node.first_child
    if first is None:
        return ""
    if first.next is None and first.tag == "-text":
        return _text(first.text_content or "")
    parts: list[str] = []
    for child, tag in _children(node):
        if tag == "-text":
            parts.append(_text(child.text_content or ""))
        elif tag == "script":
            parts.append(_mathjax(child))
        elif tag not in _SKIPPED:
            parts.append(_inline_element(child, tag))
    return "".join(parts)


def _inline_element(node: LexborNode, tag: str) -> str:
    if tag == "code":
        return _block_code(node) if _is_block_code(node, tag) else _code_span(node)
    if (mark := _MARKS.get(tag)) is not None:
        return _marked(_inline(node), mark)
    if tag == "span":
        return _span(node)
    if tag == "br":
        return "\n"
    if tag == "a":
        return _link(node)
    if tag == "img":
        attributes = node.attributes
        return f"![{attributes.get('alt') or ''}]({attributes.get('src') or ''})"
    if tag == "input":
        attributes = node.attributes
        if attributes.get("type") == "checkbox":
            return "[x] " if "checked" in attributes else "[ ] "
        return ""
    if tag == "math":
        return _tex(node, display=False)
    return _inline(node)


def _marked(text: str, mark: str) -> str:
    """`**text**` with the blanks outside, where Markdown wants them."""
    core = text.strip()
    if not core:
        return text
    start = text.index(core)
    return f"{text[:start]}{mark}{core}{mark}{text[start + len(core) :]}"


def _link(node: LexborNode) -> str:
    text, href = _inline(node), node.attributes.get("href") or ""
    label = text.strip()
    if not href or href == label or href == f"mailto:{label}":
        return text
    return f"[{label}]({href})" if label else ""


def _span(node: LexborNode) -> str:
    classes = node.attrs.sget("class")
    if classes:
        if "katex-display" in classes or "math-display" in classes:
            return _tex(node, display=True)
        if "katex-error" in classes:
            return node.text()
        if "katex" in classes or "math-inline" in classes:
            return _tex(node, display=False)
        if "MathJax" in classes:
            return ""
    return _inline(node)


def _tex(node: LexborNode, *, display: bool) -> str:
    """The TeX that KaTeX keeps in its MathML annotation; without one, the visible text."""
    annotation = node.css_first("annotation")
    tex = annotation.text().strip() if annotation is not None else ""
    if not tex:
        visible = node.css_first(".katex-html, .katex-error") or node
        return _text(visible.text()).strip()
    return f"$$\n{tex}\n$$" if display else f"${tex}$"


def _mathjax(node: LexborNode) -> str:
    kind = node.attrs.sget("type")
    if not kind.startswith("math/tex"):
        return ""
    tex = node.text().strip()
    return f"$$\n{tex}\n$$" if "display" in kind else f"${tex}$"


def _code_span(node: LexborNode) -> str:
    code = node.text().replace("\n", " ")
    if not code:
        return ""
    if "`" not in code:
        return f"`{code}`"
    fence = "`" * (1 + max(map(len, _BACKTICKS.findall(code))))
    pad = " " if code[0] == "`" or code[-1] == "`" else ""
    return f"{fence}{pad}{code}{pad}{fence}"


def _is_block_code(node: LexborNode, tag: str) -> bool:
    if tag != "code":
        return False
    classes = node.attrs.sget("class")
    return bool(classes) and ("hljs" in classes or "whitespace-pre" in classes)


def _block_code(code: LexborNode, label: str = "") -> str:
    match = _LANGUAGE.search(code.attrs.sget("class"))
    language = match[1] if match else label
    return _fenced(_code_text(code), language)


def _fenced(code: str, language: str) -> str:
    code = code.removesuffix("\n")
    longest = max(map(len, _BACKTICKS.findall(code)), default=0) if "```" in code else 0
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def _code_text(node: LexborNode) -> str:
    """All the text; a <br> is a line end, which `text()` would lose."""
    if node.css_first("br") is None:
        return node.text()
    return "".join(
        "\n" if part.tag == "br" else part.text_content or ""
        for part in node.traverse(include_text=True)
        if part.tag in ("br", "-text")
    )


def _pre(node: LexborNode) -> list[str]:
    code = node.css_first("code")
    if code is None:
        return [_fenced(_code_text(node), "")] if node.text().strip() else []
    if not (text := _code_text(code)).strip():
        return []
    match = _LANGUAGE.search(code.attrs.sget("class") + " " + node.attrs.sget("class"))
    if match:
        return [_fenced(text, match[1])]
    return [_fenced(text, _bar_label(node, code))]


def _bar_label(container: LexborNode, code: LexborNode) -> str:
    """The language the bar above the code shows, without its buttons."""
    words: list[str] = []
    for part in container.traverse(include_text=True):
        if part == code:
            break
        if part.tag == "-text" and not _inside_button(part, container):
            words.append(part.text_content or "")
    label = _COPY_TEXT.sub("", "".join(words).strip()).strip()
    return label.lower() if _LABEL.fullmatch(label) else ""


def _inside_button(node: LexborNode, container: LexborNode) -> bool:
    parent = node.parent
    while parent is not None and parent != container:
        if parent.tag in _SKIPPED:
            return True
        parent = parent.parent
    return False


def _div(node: LexborNode) -> list[str]:
    classes = node.attrs.sget("class")
    if classes:
        if "math-display" in classes or "katex-display" in classes:
            return [_tex(node, display=True)]
        if "bg-black" in classes or "rounded-md" in classes or "bg-gray-950" in classes:
            code = node.css_first("code.hljs, code[class*='whitespace-pre']")
            if code is not None and node.css_first("pre") is None:
                text = _code_text(code)
                return [_block_code(code, _bar_label(node, code))] if text.strip() else []
        if "whitespace-pre-wrap" in classes and "markdown" not in classes:
            return _preformatted(node)
    return _blocks(node)


def _preformatted(node: LexborNode) -> list[str]:
    """A wrapper whose own text keeps its line ends and blanks, as user messages do."""
    if any(tag != "-text" for _, tag in _children(node)):
        return _blocks(node)
    return [text] if (text := node.text().strip("\n")) else []


def _heading(node: LexborNode) -> list[str]:
    text = _inline(node).strip().replace("\n", " ")
    return [f"{'#' * int((node.tag or 'h1')[1])} {text}"] if text else []


def _blockquote(node: LexborNode) -> list[str]:
    inner = "\n\n".join(_blocks(node))
    if not inner:
        return []
    return ["\n".join(f"> {line}" if line else ">" for line in inner.split("\n"))]


def _list(node: LexborNode) -> list[str]:
    ordered = node.tag == "ol"
    number = _integer(node.attrs.sget("start"), 1) if ordered else 0
    items: list[str] = []
    loose = False
    for child, tag in _children(node):
        if tag == "li":
            if ordered:
                number = _integer(child.attrs.sget("value"), number)
            marker = f"{number}. " if ordered else "- "
            blocks = _blocks(child)
            paragraphs = child.css_matches("li > p") and _own_paragraph(child)
            loose = loose or paragraphs
            body = ("\n\n" if paragraphs else "\n").join(blocks) if blocks else ""
            items.append(_indented(marker, body))
            number += 1
        elif tag in ("ul", "ol"):
            # A list directly inside a list belongs to the item before it.
            nested = "\n".join(_list(child))
            items.append(_indented("  ", nested) if not ordered else _indented("   ", nested))
    return [("\n\n" if loose else "\n").join(items)] if items else []


def _own_paragraph(item: LexborNode) -> bool:
    return any(tag == "p" for _, tag in _children(item))


def _indented(marker: str, body: str) -> str:
    pad = " " * len(marker)
    lines = body.split("\n")
    return "\n".join(
        [(marker + lines[0]).rstrip()] + [pad + line if line else "" for line in lines[1:]]
    )


def _integer(text: str, default: int) -> int:
    try:
        return int(text) if text else default
    except ValueError:
        return default


def _table(node: LexborNode) -> list[str]:
    rows = [[cell for cell, tag in _children(row) if tag in ("td", "th")] for row in node.css("tr")]
    rows = [row for row in rows if row]
    if not rows:
        return []
    width = max(map(len, rows))
    lines = [_table_row([_cell(cell) for cell in row], width) for row in rows]
    rule = _table_row([_rule(cell) for cell in rows[0]], width, fill="---")
    return ["\n".join([lines[0], rule, *lines[1:]])]


def _table_row(cells: list[str], width: int, fill: str = "") -> str:
    return "| " + " | ".join(cells + [fill] * (width - len(cells))) + " |"


def _cell(cell: LexborNode) -> str:
    return " ".join(_inline(cell).split()).replace("|", "\\|")


def _rule(cell: LexborNode) -> str:
    attributes = cell.attributes
    align = f"{attributes.get('align') or ''} {attributes.get('style') or ''}"
    if "center" in align:
        return ":---:"
    if "right" in align:
        return "---:"
    return ":---" if "left" in align else "---"


def _rule_line(_: LexborNode) -> list[str]:
    return ["---"]


_MARKS = {"strong": "**", "b": "**", "em": "*", "i": "*", "del": "~~", "s": "~~", "strike": "~~"}
_INLINE = frozenset([*_MARKS, "code", "br", "img", "input", "math"])
_CONTAINERS = """p section article main header footer figure figcaption details summary dl dt dd li
center address form fieldset html body aside nav"""
_BLOCK: dict[str, Callable[[LexborNode], list[str]]] = {
    **dict.fromkeys(_CONTAINERS.split(), _blocks),
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), _heading),
    "div": _div,
    "pre": _pre,
    "ul": _list,
    "ol": _list,
    "table": _table,
    "blockquote": _blockquote,
    "hr": _rule_line,
}
