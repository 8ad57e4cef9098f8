"""A folder whose tokenizer or template cannot be used is refused in a sentence."""

import json
from pathlib import Path

import pytest

from apps.common.errors import InputError, TemplateError
from apps.common.text.jinja import render
from apps.common.text.templates import load_template
from apps.common.text.tokenizer import load_tokenizer
from tests.made import byte_level_folder, sentencepiece_folder


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].content.index('What') }}",
        "{{ 'x'.split('') }}",
        "{% for i in range(1000000000) %}a{% endfor %}",
        "{{ 1 // 0 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_whatever_a_template_s_expression_raises_is_a_sentence(source: str) -> None:
    with pytest.raises(TemplateError, match="refused the messages"):
        render(source, {"messages": [{"role": "user", "content": "Hi"}]})


@pytest.mark.parametrize(
    "stated",
    [
        {"default": "x"},
        3,
        ["x"],
        [{"name": "default", "template": "x"}, None],
        [{"name": "default", "template": {"x": 1}}],
        [{"name": ["tool"], "template": "x"}, {"name": "default", "template": 3}],
    ],
)
def test_a_template_that_is_no_text_is_refused(tmp_path: Path, stated: object) -> None:
    byte_level_folder(tmp_path, "chatml")
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": stated}))
    with pytest.raises(TemplateError, match="expected a Jinja text"):
        load_template(str(tmp_path))


@pytest.mark.parametrize("make", [byte_level_folder, sentencepiece_folder])
@pytest.mark.parametrize("saved", ["{}", '{"model": null}'])
def test_a_tokenizer_without_a_model_is_refused(tmp_path: Path, make, saved: str) -> None:
    make(tmp_path)
    (tmp_path / "tokenizer.json").write_text(saved)
    with pytest.raises(InputError, match="holds no model"):
        load_tokenizer(str(tmp_path))
