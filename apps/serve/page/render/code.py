"""Code of an answer: coloured by class, never by style; mermaid and the unknown stay as written."""

import functools
import html

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.styles import get_style_by_name
from pygments.util import ClassNotFound

_MAX_COLOURED_CHARS = 12_000
_MAX_LINE_CHARS = 1_000
# fmt: off
_LANGUAGES = {
    "bash", "c", "c++", "cpp", "cs", "csharp", "css", "diff", "docker", "dockerfile", "go",
    "golang", "haskell", "html", "http", "ini", "java", "javascript", "js", "json", "jsx",
    "julia", "kotlin", "latex", "lua", "makefile", "matlab", "nginx", "perl", "php",
    "powershell", "py", "python", "python3", "r", "rb", "ruby", "rs", "rust", "scala", "sh",
    "shell", "sql", "swift", "tex", "toml", "ts", "tsx", "typescript", "xml", "yaml", "yml",
    "zsh",
}
# fmt: on
"""Those that people ask for; a lexer is a heap of patterns, and not all of them end soon."""
_FORMATTER = HtmlFormatter(nowrap=True, classprefix="hl-")


def code_block(code: str, language: str) -> str:
    """HTML of a fenced block with the language's name above it."""
    name = language.strip().split(maxsplit=1)[0].lower()[:24] if language.strip() else ""
    head = f'<div class="code-name">{html.escape(name or "text")}</div>'
    return f'<div class="code-block">{head}<pre><code>{coloured(code, name)}</code></pre></div>'


def coloured(code: str, language: str) -> str:
    lexer = _lexer(language)
    longest = max(map(len, code.splitlines()), default=0)
    if lexer is None or len(code) > _MAX_COLOURED_CHARS or longest > _MAX_LINE_CHARS:
        return html.escape(code)
    return highlight(code, lexer, _FORMATTER)


@functools.lru_cache(maxsize=64)
def _lexer(language: str) -> Lexer | None:
    if language not in _LANGUAGES:
        return None
    try:
        return get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        return None


@functools.cache
def stylesheet() -> str:
    """The colours of both schemes, for the page's own style sheet.

    Of Pygments' styles these are legible on the ground of page.css (contrast of 4.5 and more).
    """
    light = _rules("xcode", ":root")
    dark = _rules("github-dark", ":root[data-scheme=dark]")
    return f"{light}\n{dark}\n"


def _rules(style: str, scope: str) -> str:
    formatter = HtmlFormatter(style=get_style_by_name(style), classprefix="hl-")
    lines = formatter.get_token_style_defs(f"{scope} .code-block")
    return "\n".join(lines)
