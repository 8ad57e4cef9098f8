"""A GGUF file's chat template, with markers around what the assistant says.

Published templates seldom say which tokens to train on. Most of them render what one of Cria's
named templates renders, after a default system message perhaps; then the named one stands for it.
"""

from dataclasses import replace

from apps.common.errors import TemplateError
from apps.common.text.conversation import ChatTemplate
from apps.common.text.template_check import check_template
from apps.common.text.templates import NAMED
from apps.common.text.tokenizer import Tokenizer

_QUESTION, _ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
_PROBES = (
    [_QUESTION],
    [_QUESTION, _ANSWER],
    [_QUESTION, _ANSWER, _QUESTION, _ANSWER],
    [{"role": "system", "content": "s"}, _QUESTION],
    [{"role": "system", "content": "s"}, _QUESTION, _ANSWER],
)


def with_markers(own: ChatTemplate, tokenizer: Tokenizer) -> ChatTemplate:
    """A template that renders as `own` does and can make a loss mask.

    Raises TemplateError when `own` has no markers and none of the named templates agrees with it.
    """
    if own.has_generation_markers:
        check_template(own, tokenizer)
        return own
    for named in NAMED.values():
        marked = _like(own, named.with_special_tokens(own.special_tokens))
        if marked is not None:
            check_template(marked, tokenizer)
            return marked
    raise TemplateError(
        f"The file's chat template is none of {', '.join(NAMED)} and has no generation markers, so "
        "nothing says which tokens to train on; choose one by name: --template chatml."
    )


def _like(own: ChatTemplate, named: ChatTemplate) -> ChatTemplate | None:
    """`named` after the default system message of `own`; None when they disagree."""
    try:
        default, plain = own.render([_QUESTION]).text, named.render([_QUESTION]).text
        if not default.endswith(plain):
            return None
        marked = _after(default.removesuffix(plain), named)
        agrees = all(
            own.render(probe, add_generation_prompt=asks).text
            == marked.render(probe, add_generation_prompt=asks).text
            for probe in _PROBES
            for asks in (False, True)
        )
    except TemplateError:
        return None
    return marked if agrees else None


def _after(opening: str, named: ChatTemplate) -> ChatTemplate:
    """`named`, beginning with `opening` where a conversation brings no system message."""
    if not opening:
        return named
    text = opening.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    test = "{%- if messages[0]['role'] != 'system' -%}"
    source = f"{test}{{{{- '{text}' -}}}}{{%- endif -%}}\n{named.source}"
    return replace(named, name="own", source=source)
