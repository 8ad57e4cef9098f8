"""Code of the ChatGPT page: spans, and blocks in the markups of 2023-24.

Text, blank lines and indentation stay as they are. The language comes from the class of the code,
or from the bar above it; what the bar's buttons say ("Copy code") does not.
"""

import re

from selectolax.lexbor import LexborNode

from apps.data.html.nodes import every, first

_NOT_CONTENT = """-comment button svg style script noscript template head title select textarea
iframe object audio video canvas mjx-assistive-mml"""
NOT_CONTENT = frozenset(_NOT_CONTENT.split())
"""Tags whose text is no part of a message."""

_LANGUAGE = re.compile(r"\blang(?:uage)?-([^\s\"']+)")
_LABEL = re.compile(r"[A-Za-z][\w+#.\-]{0,24}")
_COPY_TEXT = re.compile(r"(?:Copy code|Copy|Edit|Copied!)+$")
_BACKTICKS = re.compile(r"`+")
_LINE_TAGS = frozenset(("br", "div", "p", "li", "tr"))


def span(node: LexborNode) -> str:
    """Inline code, between more backticks than it holds in a row: `a``b` becomes ```a``b```."""
    return quoted(text_of(node).replace("\n", " "))


def quoted(code: str) -> str:
    """One line of code as a span."""
    if not code:
        return ""
    if "`" not in code:
        return f"`{code}`"
    fence = "`" * (1 + max(map(len, _BACKTICKS.findall(code))))
    pad = " " if code[0] == "`" or code[-1] == "`" else ""
    return f"{fence}{pad}{code}{pad}{fence}"


def is_block(node: LexborNode) -> bool:
    """Whether a <code> outside of a <pre> is a block; its classes say so."""
    classes = node.attributes.get("class")
    return bool(classes) and ("hljs" in classes or "whitespace-pre" in classes)


def is_of_page(node: LexborNode) -> bool:
    """Whether a <code> has a class that the page gives to its blocks."""
    classes = node.attributes.get("class") or ""
    return "whitespace-pre" in classes or "hljs" in classes.lower().split()


def lines_of(block: str) -> list[str]:
    """A fenced block as one span a line, for a table's cell: that holds no lines."""
    return [quoted(line) for line in block.split("\n")[1:-1] if line.strip()]


def block(code: LexborNode, label: str = "") -> str:
    return _fenced(text_of(code), _language_of(code) or label)


def _fenced(code: str, language: str) -> str:
    code = code.removesuffix("\n")
    longest = max(map(len, _BACKTICKS.findall(code)), default=0) if "```" in code else 0
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def text_of(node: LexborNode) -> str:
    """All the text; a <br>, or an element a line, is a line end, which `text()` would lose."""
    only = node.first_child
    if only is not None and only.next is None and only.tag == "-text":
        return only.text_content or ""
    if first(node, *_LINE_TAGS) is None:
        return node.text()
    text = ""
    for part in node.traverse(include_text=True):
        if part.tag == "-text":
            text += part.text_content or ""
        elif part.tag == "br" or (part.tag in _LINE_TAGS and text and text[-1] != "\n"):
            text += "\n"
    return text


def pre(node: LexborNode) -> list[str]:
    """The block of a <pre>."""
    codes = every(node, "code")
    if not codes or _is_code_around(node, codes[0]):
        text, language = text_of(node), _language_of(node)
    else:
        text = "\n".join(
            [*(text_of(one).removesuffix("\n") for one in codes[:-1]), text_of(codes[-1])]
        )
        language = _language_of(node, codes[0]) or bar_label(node, codes[0])
    return [_fenced(text, language)] if text.strip() else []


def _language_of(*nodes: LexborNode) -> str:
    classes = [node.attributes.get("class") or "" for node in nodes[::-1]]
    match = _LANGUAGE.search(" ".join(classes))
    return match[1] if match else ""


def _is_code_around(node: LexborNode, code: LexborNode) -> bool:
    """Whether a <pre> without a bar has text beside its first <code>, which is then code too."""
    only = node.first_child
    if only is not None and only.next is None and only.mem_id == code.mem_id:
        return False
    if first(node, "div", "button") is not None:
        return False
    whole, own = node.text().strip(), code.text().strip()
    if whole == own:
        return False
    others = _COPY_TEXT.sub("", whole.replace(own, "", 1).strip()).strip()
    return bool(others) and not _LABEL.fullmatch(others)


def bar_label(container: LexborNode, code: LexborNode) -> str:
    """The language that the bar above the code shows, lower case; "" where it shows none."""
    words: list[str] = []
    for part in container.traverse(include_text=True):
        if part.mem_id == code.mem_id:  # nodes themselves are compared by all their HTML
            break
        if part.tag == "-text" and not _inside_button(part, container):
            words.append(part.text_content or "")
    label = _COPY_TEXT.sub("", "".join(words).strip()).strip()
    return label.lower() if _LABEL.fullmatch(label) else ""


def _inside_button(node: LexborNode, container: LexborNode) -> bool:
    parent = node.parent
    while parent is not None and parent.mem_id != container.mem_id:
        if parent.tag in NOT_CONTENT:
            return True
        parent = parent.parent
    return False
