"""ChatGPT-page HTML back to the Markdown it was rendered from, with Lexbor (selectolax).

Knows the code-block markups of 2023-24 (with and without <pre>, the label in a <span>, in the bar
itself or only in the class), KaTeX and MathJax, nested lists with their numbers, tables, and what
the page adds (buttons, icons, counters). Text is never backslash-escaped: a model would learn to
imitate it. The one exception is `|` inside a table cell, which Markdown itself demands.
"""

import re
from collections.abc import Callable, Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from apps.data.html import code, detect, math
from apps.data.html.code import NOT_CONTENT
from apps.data.html.nodes import every, first

_SPACES = re.compile(r"[ \t\r\f]+")
_LINE_ENDS = re.compile(r" ?\n ?")
_COUNTER = re.compile(r"\d+ / \d+")
_FENCED = re.compile(
    r"^ {0,3}(`{3,}|~{3,})[^`\n]*\n.*?(?:^ {0,3}\1[`~]*[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
_WORD_COUNT = re.compile(r"Copy\d+ chars / \d+ words")


def to_markdown(html: str) -> str:
    """Markdown of page HTML; a part that is fenced code already stays as it is.

    Raises HtmlRefused.
    """
    detect.check_size(html)
    if not ("`" in html and "```" in html) and not ("~" in html and "~~~" in html):
        return _walked(html)
    parts: list[str] = []
    end = 0
    for match in _FENCED.finditer(html):
        if html.rfind("<pre", 0, match.start()) <= html.rfind("</pre", 0, match.start()):
            parts += [_walked(html[end : match.start()]), match[0].rstrip("\n")]
            end = match.end()
    return "\n\n".join(part for part in (*parts, _walked(html[end:])) if part)


def _walked(html: str) -> str:
    root = LexborHTMLParser("<body>" + html, options=1).body
    if root is None:
        return ""
    try:
        blocks = _blocks(root)
    except RecursionError as error:
        raise detect.HtmlRefused("html-too-deep") from error
    return "\n\n".join(_without_page_noise(blocks))


def _without_page_noise(blocks: list[str]) -> list[str]:
    """Drop a leading regenerate counter ("1 / 2") and word counts that stand alone."""
    if len(blocks) > 1 and _COUNTER.fullmatch(blocks[0]):
        blocks = blocks[1:]
    return [b for b in blocks if not (b.startswith("Copy") and _WORD_COUNT.fullmatch(b))]


def _children(node: LexborNode) -> Iterator[tuple[LexborNode, str]]:
    child = node.first_child
    while child is not None:
        yield child, child.tag or ""
        child = child.next


def _text(text: str) -> str:
    """Runs of blanks become one; a line end stays, as the Markdown had it there."""
    if "  " in text or "\t" in text or "\r" in text:
        text = _SPACES.sub(" ", text)
    return _LINE_ENDS.sub("\n", text) if " \n" in text or "\n " in text else text


def _only_text(node: LexborNode) -> str | None:
    """The text of an element that holds nothing else, as most do; None of the others.

    Every node that is asked for makes an object, so the common case is seen in three.
    """
    only = node.first_child
    if only is None or only.next is not None or only.tag != "-text":
        return None
    return _text(only.text_content or "")


def _blocks(node: LexborNode) -> list[str]:
    """The Markdown blocks of an element's children, to be joined by blank lines."""
    child = node.first_child
    if child is not None and child.next is None and child.tag == "-text":
        return [text] if (text := _text(child.text_content or "").strip(" \n")) else []
    blocks: list[str] = []
    run: list[str] = []
    while child is not None:
        tag = child.tag or ""
        if tag == "-text":
            run.append(_text(child.text_content or ""))
        elif (block := _BLOCK.get(tag)) is not None:
            if run:
                _end_paragraph(run, blocks)
            blocks += block(child)
        elif tag not in NOT_CONTENT:
            if tag not in _INLINE and _holds_block(child):
                _end_paragraph(run, blocks)
                blocks += _marked_blocks(child, tag)
            else:
                piece = _inline_element(child, tag)
                if piece.startswith(("$$\n", "```")):
                    _end_paragraph(run, blocks)
                    blocks.append(piece)
                else:
                    run.append(piece)
        elif tag == "script":
            run.append(math.mathjax_2(child))
        child = child.next
    if run:
        _end_paragraph(run, blocks)
    return blocks


def _marked_blocks(node: LexborNode, tag: str) -> list[str]:
    """Of an inline element around blocks; its mark goes around each line of text."""
    blocks, mark = _blocks(node), _MARKS.get(tag, "")
    return [_marked(block, mark) if "\n" not in block else block for block in blocks]


def _end_paragraph(run: list[str], blocks: list[str]) -> None:
    if text := "".join(run).strip(" \n"):
        blocks.append(text)
    run.clear()


def _holds_block(node: LexborNode) -> bool:
    child = node.first_child
    while child is not None:
        tag = child.tag or ""
        if tag in _BLOCK or (tag == "code" and code.is_block(child)):
            return True
        child = child.next
    return False


def _inline(node: LexborNode) -> str:
    """The Markdown of an element's children, on one line but for line breaks."""
    if (only := _only_text(node)) is not None:
        return only
    parts: list[str] = []
    child = node.first_child
    while child is not None:
        tag = child.tag or ""
        if tag == "-text":
            parts.append(_text(child.text_content or ""))
        elif tag == "script":
            parts.append(math.mathjax_2(child))
        elif tag not in NOT_CONTENT:
            parts.append(_inline_element(child, tag))
        child = child.next
    return "".join(parts)


def _inline_element(node: LexborNode, tag: str) -> str:
    if tag == "code":
        return code.block(node) if code.is_block(node) else code.span(node)
    if (mark := _MARKS.get(tag)) is not None:
        return _marked(_inline(node), mark)
    if tag == "span":
        return _span(node)
    if tag == "br":
        return _line_break(node)
    if tag == "a":
        return _link(node)
    if tag == "img":
        attributes = node.attributes
        return f"![{attributes.get('alt') or ''}]({attributes.get('src') or ''})"
    if tag == "input":
        return _checkbox(node)
    if tag == "math":
        return math.tex(node, display=node.attributes.get("display") == "block")
    if tag == "mjx-container":
        return math.mathjax_3(node)
    if tag in _TAGS_KEPT:
        return _kept_tag(node, tag)
    return _inline(node)


def _line_break(node: LexborNode) -> str:
    """Pages write a line end after a <br>; it is the same one."""
    follower = node.next
    if follower is None or follower.tag != "-text":
        return "\n"
    return "" if (follower.text_content or "").lstrip(" \t\r").startswith("\n") else "\n"


def _checkbox(node: LexborNode) -> str:
    attributes = node.attributes
    if attributes.get("type") != "checkbox":
        return ""
    follower = node.next
    is_apart = follower is not None and (follower.text_content or "")[:1].isspace()
    return ("[x]" if "checked" in attributes else "[ ]") + ("" if is_apart else " ")


def _marked(text: str, mark: str) -> str:
    """`**text**` with the blanks outside, where Markdown wants them."""
    core = text.strip()
    if not core:
        return text
    start = text.index(core)
    return f"{text[:start]}{mark}{core}{mark}{text[start + len(core) :]}"


def _link(node: LexborNode) -> str:
    text, href = _inline(node), node.attributes.get("href")
    label = text.strip()
    if not href or href == label or href == f"mailto:{label}":
        return text
    if " " in href or href.count("(") != href.count(")"):
        href = f"<{href}>"
    return f"[{label}]({href})" if label else ""


def _kept_tag(node: LexborNode, tag: str) -> str:
    """x<sup>2</sup>, which Markdown can only say as HTML; a citation's link needs no tag."""
    text = _inline(node)
    return text if not text.strip() or "](" in text else f"<{tag}>{text}</{tag}>"


def _span(node: LexborNode) -> str:
    classes = node.attributes.get("class")
    if classes:
        if "katex-error" in classes:
            return node.text()
        if kind := math.in_class(classes):
            return math.tex(node, display=kind == "display")
        if "MathJax" in classes:
            return _mathjax_span(node, classes)
        if "sr-only" in classes:
            return ""
    return _inline(node)


def _mathjax_span(node: LexborNode, classes: str) -> str:
    """What MathJax 2 draws; the <script> after it has the TeX, unless the export lost it."""
    parent = node.parent
    follower = node.next or (parent.next if parent is not None else None)
    has_source = follower is not None and follower.tag == "script"
    return "" if has_source or "Preview" in classes else _inline(node)


def _div(node: LexborNode) -> list[str]:
    classes = node.attributes.get("class")
    if classes:
        if math.in_class(classes) == "display":
            return [math.tex(node, display=True)]
        if "sr-only" in classes:
            return []
        if "bg-black" in classes or "rounded-md" in classes or "bg-gray-950" in classes:
            bare = _only_code(node)
            if bare is not None:
                label = code.bar_label(node, bare)
                return [code.block(bare, label)] if bare.text().strip() else []
        if "whitespace-pre-wrap" in classes and "markdown" not in classes:
            return _preformatted(node)
    return _blocks(node)


def _only_code(node: LexborNode) -> LexborNode | None:
    """The page's block of code in a box that holds no other content."""
    bare: LexborNode | None = None
    for part in node.traverse():
        if part.tag in _MORE_THAN_CODE or (part.tag == "code" and _follows_code(part)):
            return None
        if bare is None and part.tag == "code" and code.is_of_page(part):
            bare = part
    return bare


def _follows_code(node: LexborNode) -> bool:
    before = node.prev
    while before is not None and before.tag != "code":
        before = before.prev
    return before is not None


def _preformatted(node: LexborNode) -> list[str]:
    """A wrapper whose own text keeps its line ends and blanks, as user messages do."""
    if any(tag != "-text" for _, tag in _children(node)):
        return _blocks(node)
    return [text] if (text := node.text().strip("\n")) else []


def _heading(node: LexborNode) -> list[str]:
    if "sr-only" in (node.attributes.get("class") or ""):
        return []
    text = _inline(node).strip().replace("\n", " ")
    return [f"{'#' * int((node.tag or 'h1')[1])} {text}"] if text else []


def _blockquote(node: LexborNode) -> list[str]:
    inner = "\n\n".join(_blocks(node))
    if not inner:
        return []
    return ["\n".join(f"> {line}" if line else ">" for line in inner.split("\n"))]


def _list(node: LexborNode) -> list[str]:
    ordered = node.tag == "ol"
    number = _integer(node.attributes.get("start"), 1) if ordered else 0
    items: list[str] = []
    loose = False
    for child, tag in _children(node):
        if tag == "li":
            if ordered:
                number = _integer(child.attributes.get("value"), number)
            marker = f"{number}. " if ordered else "- "
            if (only := _only_text(child)) is not None:
                body = only.strip(" \n")
            else:
                paragraphs = _own_paragraph(child)
                loose = loose or paragraphs
                body = ("\n\n" if paragraphs else "\n").join(_blocks(child))
            items.append(_indented(marker, body))
            number += 1
        elif tag in ("ul", "ol"):
            # A list directly inside a list belongs to the item before it.
            nested = "\n".join(_list(child))
            items.append(_indented("  ", nested) if not ordered else _indented("   ", nested))
        elif stray := _stray(child, tag):
            items.append(stray)
    return [("\n\n" if loose else "\n").join(items)] if items else []


def _stray(node: LexborNode, tag: str) -> str:
    """Text or an element that no list may hold, as broken pages have them."""
    if tag == "-text":
        return _text(node.text_content or "").strip()
    if tag in NOT_CONTENT:
        return ""
    block = _BLOCK.get(tag)
    return "\n\n".join(block(node)) if block is not None else _inline_element(node, tag).strip()


def _own_paragraph(item: LexborNode) -> bool:
    child = item.first_child
    while child is not None:
        if child.tag == "p":
            return True
        child = child.next
    return False


def _indented(marker: str, body: str) -> str:
    if "\n" not in body:
        return (marker + body).rstrip()
    pad = " " * len(marker)
    lines = body.split("\n")
    return "\n".join(
        [(marker + lines[0]).rstrip()] + [pad + line if line else "" for line in lines[1:]]
    )


def _integer(text: str | None, default: int) -> int:
    """A number that Markdown has: 0 to nine digits."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else default


def _table(node: LexborNode) -> list[str]:
    parts = every(node, "tr", "table", "caption")
    own = [part for part in parts if part.tag == "tr"]
    has_tables = sum(part.tag == "table" for part in parts) > 1
    if has_tables:
        own = [row for row in own if _table_around(row) == node.mem_id]
    rows = [[cell for cell in row.iter() if cell.tag in ("td", "th")] for row in own]
    rows = [row for row in rows if row]
    caption = next((part for part in parts if part.tag == "caption"), None)
    blocks = _blocks(caption) if caption is not None else []
    if not rows:
        return blocks
    width = max(map(len, rows))
    lines = [_table_row([_cell(cell, has_tables) for cell in row], width) for row in rows]
    rule = _table_row([_rule(cell) for cell in rows[0]], width, fill="---")
    return [*blocks, "\n".join([lines[0], rule, *lines[1:]])]


def _table_around(row: LexborNode) -> int:
    """Its place in memory; nodes themselves are compared by all their HTML."""
    parent = row.parent
    while parent is not None and parent.tag != "table":
        parent = parent.parent
    return parent.mem_id if parent is not None else 0


def _table_row(cells: list[str], width: int, fill: str = "") -> str:
    return "| " + " | ".join(cells + [fill] * (width - len(cells))) + " |"


def _cell(cell: LexborNode, has_tables: bool) -> str:
    """On one line: a table's row has no other, so lines are parted as GitHub's tables part them."""
    if (only := _only_text(cell)) is not None:
        lines = [only.replace("\n", " ")]
    elif has_tables and first(cell, "table") is not None:
        lines = [" ".join(cell.text(separator=" ").split())]
    elif _holds_block(cell):
        lines = [line for block in _blocks(cell) for line in _cell_lines(block)]
    elif first(cell, "br") is not None:
        lines = _inline(cell).split("\n")
    else:
        lines = [_inline(cell).replace("\n", " ")]
    return "<br>".join(line.strip() for line in lines if line.strip()).replace("|", "\\|")


def _cell_lines(block: str) -> list[str]:
    return code.lines_of(block) if block.startswith("```") else block.split("\n")


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
_INLINE = frozenset(("code", "br", "img", "input", "math"))
_CONTENT = "pre p ul ol table blockquote h1 h2 h3 h4 h5 h6"
_MORE_THAN_CODE = frozenset(_CONTENT.split())
_TAGS_KEPT = frozenset(("sub", "sup"))
_CONTAINERS = """p section article main header footer figure figcaption details summary dl dt dd li
center address form fieldset html body aside nav"""
_BLOCK: dict[str, Callable[[LexborNode], list[str]]] = {
    **dict.fromkeys(_CONTAINERS.split(), _blocks),
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), _heading),
    "div": _div,
    "pre": code.pre,
    "ul": _list,
    "ol": _list,
    "table": _table,
    "blockquote": _blockquote,
    "hr": _rule_line,
}
