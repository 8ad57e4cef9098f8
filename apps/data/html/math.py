"""TeX of the pages that show formulas: KaTeX's annotation, MathJax's script, MathML's alttext."""

from selectolax.lexbor import LexborNode

from apps.data.html.nodes import first

_DISPLAY = ("katex-display", "math-display", "math-block")
_INLINE = ("katex", "math-inline")
_SOURCE_ATTRIBUTES = ("data-latex", "data-tex", "data-math", "alttext")


def in_class(classes: str) -> str:
    """`display` or `inline` when the classes are those of a formula, else ``."""
    if "katex" not in classes and "math" not in classes:
        return ""
    if any(name in classes for name in _DISPLAY):
        return "display"
    return "inline" if any(name in classes for name in _INLINE) else ""


def tex(node: LexborNode, *, display: bool) -> str:
    """The TeX that the page keeps beside what it draws; without any, the visible text."""
    annotation = first(node, "annotation")
    found = annotation.text().strip() if annotation is not None else _attribute(node)
    if not found:
        visible = node.css_first(".katex-html,.katex-error,mjx-assistive-mml") or node
        return " ".join(visible.text().split())
    return marked(found, display=display)


def marked(found: str, *, display: bool) -> str:
    return f"$$\n{found}\n$$" if display else f"${found}$"


def _attribute(node: LexborNode) -> str:
    for part in (node, *node.css("[data-latex],[data-tex],[data-math],[alttext]")[:1]):
        for name in _SOURCE_ATTRIBUTES:
            if found := part.attrs.sget(name):
                return found.strip()
    return ""


def mathjax_2(script: LexborNode) -> str:
    """Of `<script type="math/tex; mode=display">`; other scripts are none."""
    kind = script.attrs.sget("type")
    if not kind.startswith("math/tex"):
        return ""
    return marked(script.text().strip(), display="display" in kind)


def mathjax_3(container: LexborNode) -> str:
    """MathJax 3 draws by style sheets and leaves MathML for screen readers; 4 leaves the TeX."""
    return tex(container, display=container.attrs.sget("display") == "true")
