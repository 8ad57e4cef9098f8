"""Whether an answer that opens with a tag is a page's HTML, from the whole of it.

    <p>An answer.</p><ul><li>rendered</li></ul>      what a page made of Markdown
    <p>Hello</p> is how you write a paragraph.       Markdown that talks about HTML
    <div class="card">\\n  <h1>Welcome</h1>\\n</div>   HTML that somebody asked for
    <div>\\n<p>Welcome</p>\\n</div>                     the same: Markdown makes no plain <div>

A page that was saved has all its text inside of blocks, closes them in order, and holds only what
Markdown renders to. People write indented HTML with classes and ids of their own, and say things
beside it; one that was asked for it may give it in a page's form, and then speaks of no HTML in it.
Where a page's own classes stand ("katex", "hljs"), order alone is asked for.
"""

import re

_TAG = re.compile(
    r"<(/?)([a-zA-Z][a-zA-Z0-9:.-]*+)"
    r"([^<>\"']*+(?:(?:\"[^\"]*+\"|'[^']*+')[^<>\"']*+)*+)>([^<]*+)"
)
"""Closing slash, name, attributes, and the text until the next `<`."""
_PAGE_CLASS = re.compile(
    r"class=\"(?:[^\"<>]*[ ])?(?:markdown prose|hljs|katex(?:-display)?|!whitespace-pre|"
    r"whitespace-pre!|contains-task-list|math math-\w+|math-(?:inline|block)|MathJax\w*)[ \"]"
    r"|>Copy code</button>|<mjx-container"
)
_OWN_CLASS = re.compile(
    r"<[a-z][^<>]*?\sclass=\"(?!language-|whitespace-pre-wrap|break-words)[^\"]+\""
)
_OWN_ATTRIBUTE = re.compile(
    r"<[a-z][^<>\s]*+(?:\s[^<>\s]*+)*?\s(?:(?:id|on\w+|name|action|method|for|charset|lang|border"
    r"|cellpadding|cellspacing|bgcolor)\s*=|style=\"(?!text-align)|v-|ng-|[@:#*(\[][a-zA-Z]"
    r"|className=|[\w-]+=\{)"
)
_TEMPLATE = re.compile(r"<[?%]|=>\s*\(?\s*<[a-zA-Z]|<>")
"""Of PHP, ERB and JSX; a renderer writes no bare `<` or `>` of a text."""
_OWN_ALIGN = re.compile(r"<(?!t[dhr]\b)[a-z][^<>\s]*+(?:\s[^<>\s]*+)*?\salign\s*=")
_INDENTED = re.compile(r"\n[ \t]+</?[a-zA-Z]")
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)
_TALKED = re.compile(r"<(?:p|h[1-6]|[ou]l|table|blockquote)> ")
"""As in "<p> is the tag of a paragraph"; a renderer puts no blank there."""
_PLAIN_BOX = re.compile(r"<div>(?!\s*\d+ / \d+\s*</div>)")
"""That of a counter of answers is the page's own."""
_HTML = re.compile(r"(?i)html")
_HTML_OR_TAG = re.compile(r"(?i)html|&lt;")
_PRE = re.compile(r"<pre\b[^<]*+(?:<(?!/pre>)[^<]*+)*+(?:</pre>)?")
_RENDERED_TAGS = """p ol ul li pre code h1 h2 h3 h4 h5 h6 table caption thead tbody tfoot tr th td
blockquote strong b em i del s strike a span div sup sub math semantics annotation details summary
dl dt dd button svg mrow mi mo mn msup msub mfrac mtext msqrt mtable mtr mtd"""
_RENDERED = frozenset(_RENDERED_TAGS.split())
_EMPTY = frozenset(("area", "br", "col", "hr", "img", "input", "link", "meta", "wbr"))
_EMPTY_RENDERED = frozenset(("br", "hr", "img", "input"))
_WITHOUT_TEXT = frozenset(("ol", "ul", "table", "thead", "tbody", "tfoot", "tr"))
_ENOUGH_CHARS = 4096
"""Of a text with page classes: whoever writes about them says so before."""
_LABELS = re.compile(r"Copy code|Copy|Edit|Regenerate response")
_PART_OF_A_TAG = re.compile(r"</?[a-zA-Z][^<>]*\Z|<\Z")


def is_page(text: str, asked: str = "") -> bool:
    """Whether a text that opens with a block element is what a page rendered; `asked` is the
    question that it answers."""
    has_page_class = _PAGE_CLASS.search(text) is not None
    if not has_page_class and (_is_source(text) or _is_asked_for(text, asked)):
        return False
    return _is_in_order(text[:_ENOUGH_CHARS] if has_page_class else text, any_tag=has_page_class)


def is_talk(text: str) -> bool:
    """Whether there is text between the tags that is no label of a page's buttons."""
    return _LABELS.sub("", _TAG.sub(r"\4", text)).strip() != ""


def _is_asked_for(text: str, asked: str) -> bool:
    """Whether HTML itself answers the question: an answer about HTML names it, or shows a tag."""
    return _HTML.search(asked) is not None and _HTML_OR_TAG.search(text) is None


def _is_source(text: str) -> bool:
    """Whether somebody wrote this HTML, or Markdown around it."""
    outside = _PRE.sub("", text) if "<pre" in text else text
    if "<div>" in outside and _PLAIN_BOX.search(outside) is not None:
        return True
    if "\n\n" in outside or _TALKED.search(outside) is not None:
        return True
    if ("<?" in outside or "<%" in outside or "=>" in outside or "<>" in outside) and (
        _TEMPLATE.search(outside) is not None
    ):
        return True
    if ("\n " in outside or "\n\t" in outside) and _INDENTED.search(outside) is not None:
        return True
    if ("```" in outside or "~~~" in outside) and _FENCE.search(outside) is not None:
        return True
    if " " not in text:
        return False
    if "=" not in text:
        return False
    return (
        ("class=" in text and _OWN_CLASS.search(text) is not None)
        or _OWN_ATTRIBUTE.search(text) is not None
        or ("align" in text and _OWN_ALIGN.search(text) is not None)
    )


def _is_in_order(text: str, *, any_tag: bool) -> bool:
    """Whether all text is inside of blocks that close in order; the end may be cut off.

    `<p>a</p><p>b` is, where one block has closed; `<p>a` and `<p>a</p>b` are not.
    """
    tags = _tags(text)
    stack: list[str] = []
    num_closed = 0
    for one in tags:
        closing, name, attributes, said = one
        is_known = name in _RENDERED
        tag = name if is_known else name.lower()
        if attributes[-1:] == "/" or (not is_known and tag in _EMPTY):
            if not (any_tag or tag in _EMPTY_RENDERED):
                return False
        elif not closing:
            if not (is_known or any_tag or (tag in _RENDERED and not _is_component(name))):
                return False
            stack.append(tag)
        elif not stack or stack.pop() != tag:
            return False
        elif not stack:
            num_closed += 1
        if said and (not stack or stack[-1] in _WITHOUT_TEXT) and not said.isspace():
            is_last = one is tags[-1]
            return is_last and num_closed > 0 and _PART_OF_A_TAG.match(said) is not None
    return num_closed > 0 or (any_tag and bool(tags))


def _is_component(name: str) -> bool:
    """Whether a tag is one of JSX or Vue: <Button>, but not <BUTTON>."""
    return name[0].isupper() and not name.isupper()


def _tags(text: str) -> list[tuple[str, str, str, str]]:
    """The groups of every tag; none where something stands before the first.

    A `<` that opens no tag is text: "a < b".
    """
    tags: list[tuple[str, str, str, str]] = _TAG.findall(text)
    if text[:1] == "<" and len(tags) == text.count("<"):
        return tags
    matches = list(_TAG.finditer(text))
    if not matches or text[: matches[0].start()].strip():
        return []
    ends = [*(match.start() for match in matches[1:]), len(text)]
    return [
        (match[1], match[2], match[3], text[match.start(4) : end])
        for match, end in zip(matches, ends, strict=True)
    ]
