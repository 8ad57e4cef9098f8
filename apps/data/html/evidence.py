"""Whether an answer that opens with a tag is a page's HTML, from the whole of it.

    <p>An answer.</p><ul><li>rendered</li></ul>      what a page made of Markdown
    <p>Hello</p> is how you write a paragraph.       Markdown that talks about HTML
    <div class="card">\\n  <h1>Welcome</h1>\\n</div>   HTML that somebody asked for

A page that was saved has all its text inside of blocks, closes them in order, and holds only what
Markdown renders to. People write indented HTML with classes and ids of their own, and say things
beside it. Where a page's own classes stand ("katex", "hljs"), order alone is asked for.
"""

import re

_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9:.-]*)((?:[^<>\"']|\"[^\"]*\"|'[^']*')*)>")
_PAGE_CLASS = re.compile(
    r"class=\"(?:[^\"<>]*[ ])?(?:markdown prose|hljs|katex(?:-display)?|!whitespace-pre|"
    r"whitespace-pre!|contains-task-list|math math-\w+|math-(?:inline|block)|MathJax\w*)[ \"]"
    r"|>Copy code</button>|<mjx-container"
)
_OWN_CLASS = re.compile(
    r"<[a-z][^<>]*?\sclass=\"(?!language-|whitespace-pre-wrap|break-words)[^\"]+\""
)
_OWN_ATTRIBUTE = re.compile(
    r"<[a-z][^<>]*?\s(?:(?:id|on\w+|name|action|method|for|charset|lang|border|cellpadding"
    r"|cellspacing|bgcolor)\s*=|style=\"(?!text-align))|<(?!t[dhr]\b)[a-z][^<>]*?\salign\s*="
)
_INDENTED = re.compile(r"\n[ \t]+</?[a-zA-Z]")
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)
_TALKED = re.compile(r"<(?:p|h[1-6]|[ou]l|table|blockquote)> ")
"""As in "<p> is the tag of a paragraph"; a renderer puts no blank there."""
_PRE = re.compile(r"<pre\b.*?(?:</pre>|\Z)", re.DOTALL)
_RENDERED_TAGS = """p ol ul li pre code h1 h2 h3 h4 h5 h6 table caption thead tbody tfoot tr th td
blockquote strong b em i del s strike a span div sup sub math semantics annotation details summary
dl dt dd button svg mrow mi mo mn msup msub mfrac mtext msqrt mtable mtr mtd"""
_RENDERED = frozenset(_RENDERED_TAGS.split())
_EMPTY = frozenset(("area", "br", "col", "hr", "img", "input", "link", "meta", "wbr"))
_EMPTY_RENDERED = frozenset(("br", "hr", "img", "input"))
_WITHOUT_TEXT = frozenset(("ol", "ul", "table", "thead", "tbody", "tfoot", "tr"))
_ENOUGH_CHARS = 4096
"""Of a text with page classes: whoever writes about them says so before."""
_PART_OF_A_TAG = re.compile(r"</?[a-zA-Z][^<>]*\Z|<\Z")


def is_page(text: str) -> bool:
    """Whether a text that opens with a block element is what a page rendered."""
    has_page_class = _PAGE_CLASS.search(text) is not None
    if not has_page_class and _is_source(text):
        return False
    return _is_in_order(text[:_ENOUGH_CHARS] if has_page_class else text, any_tag=has_page_class)


def _is_source(text: str) -> bool:
    """Whether somebody wrote this HTML, or Markdown around it."""
    outside = _PRE.sub("", text) if "<pre" in text else text
    if "\n\n" in outside or _TALKED.search(outside) is not None:
        return True
    if ("\n " in outside or "\n\t" in outside) and _INDENTED.search(outside) is not None:
        return True
    if ("```" in outside or "~~~" in outside) and _FENCE.search(outside) is not None:
        return True
    if " " not in text:
        return False
    return ("class=" in text and _OWN_CLASS.search(text) is not None) or (
        "=" in text and _OWN_ATTRIBUTE.search(text) is not None
    )


def _is_in_order(text: str, *, any_tag: bool) -> bool:
    """Whether all text is inside of blocks that close in order; the end may be cut off.

    `<p>a</p><p>b` is, where one block has closed; `<p>a` and `<p>a</p>b` are not.
    """
    stack: list[str] = []
    at, num_closed = 0, 0
    for match in _TAG.finditer(text):
        if (not stack or stack[-1] in _WITHOUT_TEXT) and not _is_blank(text, at, match.start()):
            return False
        at = match.end()
        tag = match[2].lower()
        if tag in _EMPTY or match[3].endswith("/"):
            if not (any_tag or tag in _EMPTY_RENDERED):
                return False
        elif not match[1]:
            if not (any_tag or tag in _RENDERED):
                return False
            stack.append(tag)
        elif not stack or stack.pop() != tag:
            return False
        elif not stack:
            num_closed += 1
    if (not stack or stack[-1] in _WITHOUT_TEXT) and not _is_blank(text, at, len(text)):
        return num_closed > 0 and _PART_OF_A_TAG.match(text, at) is not None
    return num_closed > 0 or any_tag


def _is_blank(text: str, start: int, stop: int) -> bool:
    return start == stop or text[start:stop].isspace()
