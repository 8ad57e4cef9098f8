"""The wall behind the renderer: whatever is not on these lists is gone, whoever wrote it.

No element here can load anything, take input, or carry a style; a link is the only thing that
leads elsewhere, and only when it is clicked.
"""

import re

import nh3

# fmt: off
_TEXT = [
    "a", "blockquote", "br", "code", "del", "div", "em", "h3", "h4", "h5", "h6", "hr", "li",
    "ol", "p", "pre", "s", "span", "strong", "ul",
]
_TABLE = ["table", "tbody", "td", "th", "thead", "tr"]
_MATH = [
    "math", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover", "mphantom", "mprescripts",
    "mroot", "mrow", "ms", "mspace", "msqrt", "mstyle", "msub", "msubsup", "msup", "mtable",
    "mtd", "mtext", "mtr", "munder", "munderover", "none", "semantics",
]
# fmt: on
_CLASS = re.compile(r"(?:hl-[a-z0-9]{1,4}|code-name|code-block|task|align-(?:left|right|center)) ?")
_LINK = re.compile(r"(?i)(?:https?://|mailto:)\S+")
_MATH_VALUES = re.compile(r"[A-Za-z0-9 .#-]{0,40}")
_OPERATOR = {"accent", "fence", "form", "separator", "stretchy"}
_ATTRIBUTES = {
    "*": {"class"},
    "a": {"href"},
    "ol": {"start"},
    "math": {"display"},
    "mi": {"mathvariant"},
    "mo": _OPERATOR,
    "mover": {"accent"},
    "munder": {"accentunder"},
    "mtable": {"columnalign"},
    "mtd": {"columnalign"},
    "mstyle": {"displaystyle", "scriptlevel"},
    "mfrac": {"linethickness"},
}


def is_link(url: str) -> bool:
    """Whether a visitor may follow it: another page or a mailbox, never a script or our own API."""
    return _LINK.fullmatch(url) is not None


def clean(html: str) -> str:
    """The HTML without anything that is not on the lists."""
    return nh3.clean(
        html,
        tags={*_TEXT, *_TABLE, *_MATH},
        clean_content_tags={"script", "style"},
        attributes=_ATTRIBUTES,
        attribute_filter=_kept,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow ugc",
        set_tag_attribute_values={"a": {"target": "_blank"}},
        strip_comments=True,
    )


def _kept(tag: str, attribute: str, value: str) -> str | None:
    if attribute == "class":
        return value if _CLASS.sub("", value + " ").strip() == "" else None
    if attribute == "href":
        return value if is_link(value) else None
    if tag.startswith("m") or attribute == "start":
        return value if _MATH_VALUES.fullmatch(value) else None
    return value
