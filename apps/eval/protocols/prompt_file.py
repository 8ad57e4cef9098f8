"""FastChat's prompt.jsonl, checked before anything is asked: one prompt a category.

{"category": "general", "system_prompt": "...", "prompt_template": "{question} {answer_1}
 {answer_2} {prompt}", "defaults": {"prompt": "Rate ..."}}
"""

from string import Formatter
from typing import cast

import orjson

from apps.common.errors import InputError
from apps.common.files import storage

_CATEGORIES = ("general", "coding", "math")
_PLACEHOLDERS = ("question", "answer_1", "answer_2", "prompt")
_EXPECTED = (
    "expected FastChat's prompt.jsonl, whose lines hold category, system_prompt, prompt_template "
    "and defaults.prompt"
)


def load_prompts(uri: str | None) -> dict[str, dict[str, object]]:
    """{category: prompt}; {} without a file. Raises InputError that names the line."""
    if uri is None:
        return {}
    prompts: dict[str, dict[str, object]] = {}
    for number, line in enumerate(storage.read_bytes(uri).splitlines(), 1):
        if line.strip():
            prompt = _checked(line, f"{uri} line {number}")
            prompts[str(prompt["category"])] = prompt
    if missing := [name for name in _CATEGORIES if name not in prompts]:
        raise InputError(f"{uri} has no prompt of category {', '.join(missing)}; {_EXPECTED}")
    return prompts


def _checked(line: bytes, where: str) -> dict[str, object]:
    try:
        prompt: object = orjson.loads(line)
    except ValueError:
        raise InputError(f"{where} is not JSON; {_EXPECTED}") from None
    if not isinstance(prompt, dict):
        raise InputError(f"{where} is not an object; {_EXPECTED}")
    fields = cast(dict[str, object], prompt)
    defaults = fields.get("defaults")
    given = cast(dict[str, object], defaults if isinstance(defaults, dict) else {})
    texts = {name: fields.get(name) for name in ("category", "system_prompt", "prompt_template")}
    texts["defaults.prompt"] = given.get("prompt")
    if wrong := [name for name, text in texts.items() if not isinstance(text, str)]:
        raise InputError(f"{where} has no text {' and no '.join(wrong)}; {_EXPECTED}")
    _check_template(str(fields["prompt_template"]), where)
    return fields


def _check_template(template: str, where: str) -> None:
    """Every placeholder is one that is filled, and both answers are shown."""
    try:
        names = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
        if not set(names) - {*_PLACEHOLDERS}:
            template.format(**dict.fromkeys(_PLACEHOLDERS, "x"))
    except ValueError as error:
        raise InputError(
            f"{where} has a prompt_template that cannot be filled ({error}); write a brace that "
            "is text twice"
        ) from None
    known = ", ".join(f"{{{name}}}" for name in _PLACEHOLDERS)
    if unknown := [name for name in names if name not in _PLACEHOLDERS]:
        raise InputError(f"{where} has the placeholder {{{unknown[0]}}}; expected {known}")
    if unshown := [name for name in ("answer_1", "answer_2") if name not in names]:
        raise InputError(f"{where} does not show {{{unshown[0]}}}; expected {known}")
