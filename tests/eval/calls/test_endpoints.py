"""A name on the command line is a model, an endpoint, or refused before anything leaves."""

from pathlib import Path

import pytest

from apps.common.errors import InputError
from apps.common.files.endpoints import EndpointSettings
from apps.eval.calls.client import Endpoint
from apps.eval.calls.endpoints import named_endpoints, parse_endpoint

YAML = """
gpt:
  base_url: https://x.openai.azure.com/openai/deployments/d?api-version=2024-06-01
  key_env: AZURE_KEY
  headers: {X-Team: eval}
  drop: [temperature]
  limits: {requests_per_min: 60}
  prices: {usd_per_million_prompt_tokens: 2.5, usd_per_million_completion_tokens: 10}
local:
  base_url: http://127.0.0.1:8000/v1
  model: llama
"""


URL = "http://127.0.0.1:1/v1"


def parse(text: str, named=None) -> tuple[str, Endpoint]:
    return parse_endpoint(text, "--judge", 5.0, "CRIA_API_KEY", named or {})


def test_a_url_has_its_own_key_and_never_openais(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    name, endpoint = parse("local=http://127.0.0.1:1/v1#llama")
    assert (name, endpoint.model, endpoint.api_key) == ("local", "llama", None)
    assert endpoint.base_url == "http://127.0.0.1:1/v1"
    monkeypatch.setenv("CRIA_API_KEY", "own")
    assert parse("local=http://127.0.0.1:1/v1")[1].api_key == "own"


@pytest.mark.parametrize(
    "text",
    [
        *("http://127.0.0.1:8000/v1", "127.0.0.1:8000/v1", "localhost:8000", "localhost/v1"),
        *("api.example.com/v1", "local=127.0.0.1:8000/v1", "local=", "local=ftp://x", "a b"),
        *("local#llama", "local=http://", "llama?x=1", "judge.example.com:443", "=http://x/v1"),
        *("api.openai.com", "deepseek.com", "my.host", "10.0.0.1", "::1", "//host/v1", "host/v1"),
        *("http:/host", "https:host", "/v1", "v1/chat/completions", "user@host/v1", "unix:/tmp/s"),
        *("x=http://[::1/v1", "x=http://127.0.0.1:99999/v1", "x=http://127.0.0.1:abc/v1"),
    ],
)
def test_what_looks_like_an_address_never_travels_as_a_name(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with pytest.raises(InputError):
        parse(text)


@pytest.mark.parametrize(
    "name",
    [
        *("gpt-4o", "gpt-4.1-mini", "llama3:8b", "ft:gpt-3.5-turbo:org::id", "qwen2.5", "v2"),
        *("llama.gguf", "text-bison@001", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
    ],
)
def test_a_models_name_goes_to_openai(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert parse(name)[1].base_url is None


@pytest.mark.parametrize(
    "name",
    ["openai/o3-mini", "meta-llama/Llama-3.1-8B", "accounts/fireworks/models/x", "org/llama-v3"],
)
def test_a_routers_name_goes_to_the_router_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI has no such model, and would be sent all texts to say so."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InputError, match=rf"set OPENAI_BASE_URL to the router.*=URL#{name}"):
        parse(name)
    monkeypatch.setenv("OPENAI_BASE_URL", URL)
    assert parse(name)[1].model == name
    with pytest.raises(InputError, match="#deepseek/v3, or name it"):
        parse("deepseek/v3")


def test_openais_address_may_be_azures(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:1/openai/deployments/gpt4o?api-version=2024-06-01"
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert parse("gpt-4o")[1].style == "azure"


def test_a_file_names_endpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "endpoints.yaml"
    file.write_text(YAML)
    named = named_endpoints(str(file))
    with pytest.raises(InputError, match="needs its key in AZURE_KEY"):
        parse("gpt", named)
    monkeypatch.setenv("AZURE_KEY", "key-in-secret")
    _, gpt = parse("gpt", named)
    assert (gpt.model, gpt.style, gpt.drop) == ("gpt", "azure", ("temperature",))
    assert gpt.api_key == "key-in-secret"
    assert gpt.limits.requests_per_min == 60 and gpt.headers == {"X-Team": "eval"}
    assert gpt.prices and gpt.prices.usd_per_million_completion_tokens == 10
    _, local = parse("local", named)
    assert (local.model, local.style, local.api_key) == ("llama", "openai", None)
    assert "key-in-secret" not in repr(gpt)


def test_a_key_loses_its_end_of_line_wherever_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "openais\n")
    monkeypatch.setenv("CRIA_API_KEY", "own\r\n")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{URL}\n")
    assert parse("gpt-4o")[1].api_key == "openais" and parse("gpt-4o")[1].base_url == URL
    assert parse(f"x={URL}")[1].api_key == "own"
    named = {"y": EndpointSettings(base_url=URL, key_env="CRIA_API_KEY")}
    assert parse("y", named)[1].api_key == "own"


def test_a_key_and_a_password_do_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://u:secret@127.0.0.1:1/v1"
    monkeypatch.delenv("CRIA_API_KEY", raising=False)
    assert parse(f"x={url}")[1].base_url == url
    monkeypatch.setenv("CRIA_API_KEY", "own")
    monkeypatch.setenv("OPENAI_API_KEY", "own")
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    named = {"y": EndpointSettings(base_url=url, key_env="CRIA_API_KEY")}
    for text in (f"x={url}", "y", "gpt-4o"):
        with pytest.raises(InputError, match="one of both") as refused:
            parse(text, named)
        assert "secret" not in str(refused.value)
