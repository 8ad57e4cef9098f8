"""HTML pages from Jinja2 templates: one skeleton, and everything escaped that is not Markup.

A page's template extends `skeleton.html`, which lies here, and fills its blocks. Templates lose
their indentation on the way out, so that they can be read and the page stays small.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.ext import Extension
from markupsafe import Markup

HERE = Path(__file__).parent
_CSS_SPACE = re.compile(r"\s*([{};,])\s*|(?<=:)\s+")


class _NoIndent(Extension):
    """Strips the lines of templates."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        return "\n".join(line.strip() for line in source.splitlines() if line.strip())


def environment(folder: Path, functions: Mapping[str, Callable[..., object]]) -> Environment:
    """Templates of `folder` and the skeleton; `functions` are what they may call."""
    env = Environment(
        loader=FileSystemLoader([folder, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        extensions=[_NoIndent],
    )
    names = cast(dict[str, object], env.globals)  # pyright: ignore[reportUnknownMemberType]
    names |= {"amount": amount, "fixed": fixed, "asset": partial(asset, folder), **functions}
    return env


def asset(folder: Path, name: str) -> Markup:
    """The text of a style sheet or script beside the templates, or of the skeleton's."""
    path = next(path for path in (folder / name, HERE / name) if path.exists())
    text = path.read_text(encoding="utf-8")
    return Markup(_CSS_SPACE.sub(r"\1", text) if name.endswith(".css") else text)


def fixed(value: float, digits: int = 0) -> str:
    """A number with so many digits and a real minus sign."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def amount(count: float) -> str:
    """A count, thousands apart."""
    return f"{count:,.0f}"
