"""An endpoints file that cannot be used is refused by its key, and no secret is repeated."""

from pathlib import Path

import pytest

from apps.common.errors import InputError
from apps.common.files.endpoints import load_endpoints, read_key, style_of


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: {model: x}", "'a.base_url' is missing"),
        ("a: 3", "endpoint 'a' is 3; expected a mapping"),
        ("a: {base_url: x}", "no http URL"),
        ("a: {base_url: 'http://x', style: gemini}", "gemini"),
        ("a: {base_url: 'http://x', key_env: 'sk-123-abc'}", "name of an environment variable"),
        ("a: {base_url: 'http://x', drop: [max_tokens]}", "rename it instead"),
        ("a: {base_url: 'http://x', limits: {concurrency: 0}}", "concurrency"),
        ("a: {base_url: 'http://x', wait: 1}", "wait"),
        ("a: {base_url: 'http://[::1/v1'}", "no http URL"),
        ("a: {base_url: 'http://x:99999/v1'}", "no http URL"),
        ("a: {base_url: 'http://x:abc/v1'}", "no http URL"),
        ("a: {base_url: 'http://x/v1 y'}", "no http URL"),
        ('a: {base_url: "http://x/v1", headers: {X-Team: "a\\nsk-123: b"}}', "no HTTP header"),
        ('a: {base_url: "http://x/v1", headers: {"X Team": a}}', "no HTTP header"),
        ('a: {base_url: "http://x/v1", headers: {X-Team: "\u201ca\u201d"}}', "no HTTP header"),
        ("a: {base_url: 'http://u:sk-123@x/v1', headers: {authorization: b}}", "one of both"),
        ("", "names no endpoint"),
        ("# none yet\n", "names no endpoint"),
        *(
            (
                f"g: {{base_url: 'http://h/v1', rename: {{{renamed}}}}}",
                "another parameter's or none",
            )
            for renamed in (
                "max_tokens: temperature",
                "temperature: messages",
                "max_tokens: ''",
                "temperature: x, max_tokens: x",
            )
        ),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "endpoints.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as refused:
        load_endpoints(str(file))
    assert sentence in str(refused.value) and "sk-123" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "style"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("http://127.0.0.1:8000/v1", "openai"),
        ("https://x.openai.azure.com", "azure"),
        ("http://proxy/openai/deployments/d", "azure"),
        ("http://proxy/x?api-version=2024-06-01", "azure"),
        ("https://api.anthropic.com/v1", "anthropic"),
    ],
)
def test_a_url_tells_whose_api_it_is(url: str, style: str) -> None:
    assert style_of(url) == style


@pytest.mark.parametrize("text", ["sk-abc\n", "sk-abc\r\n", " sk-abc\t"])
def test_a_keys_end_of_line_is_no_part_of_it(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_KEY", text)
    assert read_key("OWN_KEY") == "sk-abc"
    monkeypatch.setenv("OWN_KEY", " \n")
    assert read_key("OWN_KEY") is read_key(None) is read_key("NO_SUCH_KEY") is None


@pytest.mark.parametrize(
    "text", ["sk-a\nsk-b", "\u201csk-abc\u201d", '"sk-abc"', "sk abc", "sk-\x01"]
)
def test_what_no_key_can_be_is_refused_and_not_repeated(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_KEY", text)
    with pytest.raises(InputError, match="OWN_KEY holds blanks") as refused:
        read_key("OWN_KEY")
    assert "sk" not in str(refused.value)
