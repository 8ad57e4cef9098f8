"""The sandboxed Jinja environment that chat templates run in.

Same options, filters and globals as the `chat_template` of Hugging Face transformers, so a template
renders here to the same characters; without importing torch, and safe to share between threads.
`{% generation %}...{% endgeneration %}` marks what the assistant says (transformers,
"Chat templates: train on completions only").
"""

import json
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import NoReturn, cast

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from apps.common.errors import TemplateError

_TRACKER = "cria_generation_tracker"


class GenerationTracker:
    """Character spans of the generation blocks of one rendering."""

    def __init__(self) -> None:
        self.num_chars = 0
        self.spans: list[tuple[int, int]] = []
        self.pieces: list[str] = []

    def collect(self, blocks: Iterator[str]) -> str:
        rendered: list[str] = []
        for block in blocks:
            rendered.append(block)
            self.num_chars += len(block)
        return "".join(rendered)

    def mark(self, piece: str) -> None:
        self.spans.append((self.num_chars, self.num_chars + len(piece)))
        self.pieces.append(piece)


class _GenerationTag(jinja2.ext.Extension):
    tags = {"generation"}  # noqa: RUF012 (jinja's own declaration)

    def parse(self, parser: Parser) -> nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_track")
        return nodes.CallBlock(call, [], [], body).set_lineno(lineno)

    @jinja2.pass_context
    def _track(self, context: Context, caller: Macro) -> str:
        piece = str(caller())
        tracker = context.resolve(_TRACKER)
        if isinstance(tracker, GenerationTracker):
            tracker.mark(piece)
        return piece


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationTag, jinja2.ext.loopcontrols],
    )
    filters = cast(dict[str, object], environment.filters)  # pyright: ignore[reportUnknownMemberType]
    names = cast(dict[str, object], environment.globals)  # pyright: ignore[reportUnknownMemberType]
    filters["tojson"] = _tojson
    names |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    return environment


@lru_cache(maxsize=64)
def _compile(source: str) -> jinja2.Template:
    try:
        return _environment().from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(
            f"The chat template does not parse: {error.message} (line {error.lineno}); "
            "expected a Jinja template as in chat_template.jinja."
        ) from error


_FAULTS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""what an expression of a template can raise; the sandbox adds OverflowError for long ranges"""


def render(source: str, variables: dict[str, object]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The text of a template and the character spans of its generation blocks.

    Raises TemplateError when the template refuses the messages or marks text that it then changes.
    """
    template = _compile(source)
    tracker = GenerationTracker()
    try:
        text = tracker.collect(template.generate({**variables, _TRACKER: tracker}))
    except _FAULTS as error:
        raise TemplateError(f"The chat template refused the messages: {error}.") from error
    for (start, end), piece in zip(tracker.spans, tracker.pieces, strict=True):
        if text[start:end] != piece:
            raise TemplateError(
                "A generation block of the chat template stands inside a macro, filter or set "
                "block, so its place in the text is unknown; expected it in the template's body."
            )
    return text, tuple(tracker.spans)
