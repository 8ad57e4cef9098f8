"""Other people's clients and test suites against our API."""

import importlib
import os
import re
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal
from xml.etree import ElementTree

import langchain_openai
import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from langchain_core.tools import tool
from pydantic import BaseModel, ConfigDict, Field

from apps.serve.config import ModelConfig
from apps.serve.model.served import load_model
from tests.serve.api import Api, LiveServer
from tests.serve.scripted import ScriptedEngine

NAMES = ("gpt-6-astra", "gpt-3.5-turbo-instruct", "model")


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def chat_model(server: LiveServer) -> langchain_openai.ChatOpenAI:
    return langchain_openai.ChatOpenAI(
        model="scripted", base_url=f"{server.url}/v1", api_key="none", max_retries=0
    )


def test_langchain_asks_streams_and_calls_tools(api_saying) -> None:
    call = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
    with LiveServer(api_saying("Hello you")) as server:
        model = chat_model(server)
        answer = model.invoke("Hi")
        assert answer.content == "Hello you" and answer.usage_metadata["output_tokens"] == 10
        assert "".join(chunk.content for chunk in model.stream("Hi")) == "Hello you"
    with LiveServer(api_saying(call)) as server:
        answer = chat_model(server).bind_tools([add]).invoke("What is 1 + 2?")
        assert [c["args"] for c in answer.tool_calls] == [{"a": 1, "b": 2}]


async def test_our_own_description_holds_and_no_request_makes_a_5xx(api_saying) -> None:
    api: Api = api_saying("x")
    schema = schemathesis.openapi.from_dict(api.app.openapi())
    paths = {"/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/models/{name}"}
    operations = [op.ok() for op in schema.get_all_operations() if op.ok().path in paths]
    assert len(operations) == len(paths)
    sent: list[tuple[str, str, object]] = []
    for operation in operations:

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def collect(case: schemathesis.Case) -> None:
            sent.append((case.method, case.formatted_path, case.body))

        collect()
    for method, path, body in sent:
        is_json = isinstance(body, dict | list | str | int | float)
        fields = {"json": body} if is_json else {}
        response = await api.http.request(method, path, **fields)
        assert response.status_code < 500, (path, body, response.text)


# Of the openai client's tests: file and test, whatever the client's variant, and why it fails.
EXCEPTIONS = {
    "chat.test_completions.create_with_all_params_overload_1": "refused: verbosity, moderation, "
    "web_search_options and a modality of audio would change the answer",
    "chat.test_completions.create_with_all_params_overload_2": "the same, streamed",
    "test_completions.create_with_all_params_overload_1": "wants a number as the log-probability "
    "of the first token of an echoed prompt, which has none and is null, as OpenAI's own",
}
VARIANTS = 5  # of each test: the plain and the async client, strict and loose, and aiohttp


@pytest.mark.slow
def test_the_openai_clients_own_tests_pass_but_for_the_known_exceptions(
    model_folder: Path, tmp_path: Path
) -> None:
    """The 115 that create chats and completions, and list and retrieve models."""
    served = load_model(ModelConfig(name="scripted", path=str(model_folder), aliases=NAMES))
    engine = ScriptedEngine(lambda request: served.tokenizer.backend.encode("Hello.").ids)
    suite = unpacked_source("openai==3.54.0", tmp_path)
    with LiveServer(Api(served, engine)) as server:
        passed = outcomes_of_openai_tests(suite, f"{server.url}/v1")
    assert len(passed) == 115
    failed = Counter(
        re.sub(r"Test\w+\.test_method_|\[\w+\]", "", n) for n in passed if not passed[n]
    )
    assert failed == dict.fromkeys(EXCEPTIONS, VARIANTS)


def outcomes_of_openai_tests(suite: Path, base_url: str) -> dict[str, bool]:
    """Whether each test passed, of those that create, and list and retrieve models."""
    files = ("chat/test_completions.py", "test_completions.py", "test_models.py")
    pytest_here = (sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider")
    subprocess.run(
        [*pytest_here, "--junitxml=report.xml", *(f"tests/api_resources/{f}" for f in files)],
        cwd=suite,
        env={**os.environ, "TEST_API_BASE_URL": base_url},
        capture_output=True,
    )
    cases = ElementTree.parse(suite / "report.xml").iter("testcase")
    names = {f"{case.get('classname')}.{case.get('name')}": len(case) == 0 for case in cases}
    ours = re.compile(r"tests\.api_resources\.(.+create.+|test_models.+_(list|retrieve)\b.+)")
    return {match[1]: names[name] for name in names if (match := ours.fullmatch(name))}


def unpacked_source(requirement: str, folder: Path) -> Path:
    """A source distribution of the package index, whose tests a wheel does not have."""
    wanted = [requirement, "--no-deps", "--no-binary", ":all:"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), *wanted]
    if subprocess.run(pip, capture_output=True).returncode != 0:
        pytest.skip(f"the source distribution of {requirement} cannot be downloaded")
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.iterdir() if path.is_dir())


class Closed(BaseModel):
    """Without members of the random model's invention, which would go on for long."""

    model_config = ConfigDict(extra="forbid")


class Part(Closed):
    size: Literal["small", "large"]
    is_new: bool


class Machine(Closed):
    """What a person describes."""

    kind: Literal["pump", "saw"]
    parts: Annotated[list[Part], Field(min_length=1, max_length=2)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_instructor_gets_its_objects_by_tools_and_by_schema(
    random_server: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in requirements-dev.txt: it asks for an older openai, with which nothing else works."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    if subprocess.run([*pip, str(tmp_path), "instructor==1.17.0"], capture_output=True).returncode:
        pytest.skip("instructor cannot be downloaded")
    monkeypatch.syspath_prepend(str(tmp_path))
    instructor: Any = importlib.import_module("instructor")
    openai_client = openai.OpenAI(base_url=f"{random_server.url}/v1", api_key="none", max_retries=0)
    question: Any = {"messages": [{"role": "user", "content": "A pump."}], "max_retries": 0}
    with openai_client:
        for mode in ("TOOLS", "TOOLS_STRICT", "JSON_SCHEMA"):
            client = instructor.from_openai(openai_client, mode=instructor.Mode[mode])
            ask = {"model": "random", "response_model": Machine, **question}
            assert client.chat.completions.create(**ask).parts
            assert [*client.chat.completions.create_partial(**ask)][-1].parts
