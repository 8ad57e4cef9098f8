"""`apps.serve place` as it is typed."""

import json
from pathlib import Path

import httpx
import pytest
import yaml

from apps.common.command.cli import run
from apps.common.files import config as configs
from apps.serve.__main__ import COMMANDS
from apps.serve.answer.choices import Usage
from apps.serve.config import ServeConfig
from apps.serve.gateway.metrics import GatewayMetrics, render
from apps.serve.place.in_use import in_use

SMALL = ["--traffic.minutes", "0.5", "--traffic.kind", "gamma", "--seconds", "2"]

SERVED = """
models:
  - {name: vicuna, path: p, engine: vllm, replicas: 3, resources: {gpus: 1.0}}
  - {name: big, path: p, engine: vllm, replicas: 1, resources: {gpus: 1.0}}
"""


def models_file(folder: Path, **changes: object) -> str:
    row = {"name": "vicuna", "path": "models/vicuna", "speed": "llama-7b", "share": 3}
    other = {**row, "name": "big", "speed": "llama-13b", "share": 1, **changes}
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": [row, other]}))
    return str(folder / "models.yaml")


def place(*arguments: str) -> int:
    return run("apps.serve", COMMANDS, ["place", *arguments])


def test_it_prints_what_run_takes(tmp_path: Path, capsys) -> None:
    assert place(models_file(tmp_path), "--gpus", "2xA100-80GB", "--explain", *SMALL) == 0
    printed = capsys.readouterr().out
    config = configs.from_dict(ServeConfig, yaml.safe_load(printed))
    assert {model.name for model in config.models} == {"vicuna", "big"}
    assert sum(m.replicas * m.resources.gpus for m in config.models) <= 2.01
    for said in ("# even replicas: ", "# greedy (AlpaServe): ", "# group 0: ", "of the requests"):
        assert said in printed


def test_it_writes_a_file(tmp_path: Path, capsys) -> None:
    out = tmp_path / "serve.yaml"
    assert place(models_file(tmp_path), "--gpus", "2xH100", "--out", str(out), *SMALL) == 0
    assert configs.load(ServeConfig, str(out)).models
    assert "place.done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--gpus", "8xTPU"], "--gpus is '8xTPU'"),
        (["--slo", "fast"], "expected for example ttft=2s,tpot=80ms"),
        (["--slo", "ttft=1.2.3s,tpot=80ms"], "expected for example ttft=2s,tpot=80ms"),
        (["--slo", "ttft=0s,tpot=0ms"], "expected times above 0"),
        (["--exponent", "nan"], "--exponent is nan; expected a number"),
        (["--trace", "models.yaml"], "is no trace of requests"),
        (["--gpus", "1xA100-40GB", "--times", "0"], "times is 0"),
        (["--gain", "nan"], "gain is nan; expected at least 0"),
        (["--serving", "serve.yaml"], "--serving is read with --watch only; leave it out"),
        (["--looks", "3"], "--looks is read with --watch only"),
        (
            ["--watch", "http://g", "--serving", "a", "--out", "b", "--trace", "t.csv"],
            "--trace is read without --watch only",
        ),
    ],
)
def test_what_cannot_be_is_a_sentence(tmp_path, monkeypatch, arguments, complaint, capsys) -> None:
    file = models_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert place(file, *SMALL, *arguments) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (b"", "has no requests; expected a row for each"),
        (b"2023-11-16 18:15:46.680590,374\n", "has a row that is none"),
        (b"2023-11-16 18:15:46.680590,374,many\n", "has a row that is none"),
        (b"\xff\xfe\x00,1,1\n", "expected a moment, as 2023-11-16"),
    ],
    ids=["none", "short", "word", "binary"],
)
def test_a_trace_with_a_wrong_row_is_a_sentence(tmp_path, rows: bytes, complaint, capsys) -> None:
    trace = tmp_path / "requests.csv"
    trace.write_bytes(b"TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    assert place(models_file(tmp_path), *SMALL, "--trace", str(trace)) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())


def test_a_model_without_a_speed_and_a_half_given_share_are_sentences(tmp_path, capsys) -> None:
    assert place(models_file(tmp_path, speed="gpt-5"), *SMALL) == 2
    assert "no model 'gpt-5'; it has llama-7b, llama-13b" in capsys.readouterr().err
    assert place(models_file(tmp_path, share=None), *SMALL) == 2
    assert "give all, or none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "gpus", "why"),
    [
        ({"speed": "llama-3-70b"}, "1xH100", "1 GPUs do not hold it"),
        ({"share": 1e-9}, "2xH100", "nobody asks for it in this traffic"),
        ({}, "1xA100-40GB", "others keep more requests within the SLO so, or are answered sooner"),
    ],
)
def test_the_yaml_says_why_a_model_has_no_place(
    tmp_path: Path, changes: dict[str, object], gpus: str, why: str, capsys
) -> None:
    assert place(models_file(tmp_path, **changes), "--gpus", gpus, *SMALL) == 0
    assert capsys.readouterr().out.startswith(f"# without big: {why}\n")


def test_what_fits_nowhere_is_a_sentence(tmp_path, capsys) -> None:
    rows = [{"name": "huge", "path": "p", "speed": "llama-3-70b"}]
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": rows}))
    assert place(str(tmp_path / "models.yaml"), "--gpus", "1xA100-40GB", *SMALL) == 2
    assert "give more or larger GPUs" in capsys.readouterr().err


class Gateway:
    """Counts requests that ask ever more for one model; /metrics is the real text."""

    def __init__(self) -> None:
        self.metrics, self.requests = GatewayMetrics(), {"vicuna": 0, "big": 0}

    def get(self, url: str, **_: object) -> httpx.Response:
        assert url == "http://gateway/metrics"
        for model, requests in self.requests.items():
            for _ in range(requests):
                self.metrics.requests.labels(model, "chat", "200", "").inc()
                usage = Usage(prompt_tokens=400, completion_tokens=200)
                self.metrics.count_usage(model, "", usage, 0.0)
        text = render([self.metrics.samples()], {}, {})
        return httpx.Response(200, text=text, request=httpx.Request("GET", url))


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    made = Gateway()
    monkeypatch.setattr(httpx, "get", made.get)
    monkeypatch.setattr("apps.serve.placing.time", FakeTime())
    return made


class FakeTime:
    """A minute passes in no time."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def watching(folder: Path, *arguments: str) -> int:
    return place(
        models_file(folder), "--gpus", "4xA100-80GB", *SMALL, "--watch", "http://gateway",
        "--serving", str(folder / "serve.yaml"), "--out", str(folder / "proposed.yaml"),
        "--every-minutes", "1", "--log-format", "json", *arguments,
    )  # fmt: skip


def test_shifted_traffic_is_answered_with_another_yaml(
    gateway: Gateway, tmp_path: Path, capsys
) -> None:
    """One model had three GPUs of four; now the other is asked for everything."""
    (tmp_path / "serve.yaml").write_text(SERVED)
    gateway.requests = {"vicuna": 30, "big": 3000}
    assert watching(tmp_path, "--looks", "1") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["event"] == "place.proposed" and told["within_slo"] > told["within_slo_now"] + 0.02
    big = configs.load(ServeConfig, str(tmp_path / "proposed.yaml")).models[-1]
    group = in_use(ServeConfig(models=(big,)), ["big"])
    assert sum(one.num_gpus for one in group) > 1
    (tmp_path / "serve.yaml").write_bytes((tmp_path / "proposed.yaml").read_bytes())
    assert watching(tmp_path, "--looks", "1") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["event"] == "place.kept"


def test_a_model_that_nobody_asks_just_now_stays_in_service(
    gateway: Gateway, tmp_path: Path, capsys
) -> None:
    (tmp_path / "serve.yaml").write_text(SERVED)
    gateway.requests = {"vicuna": 0, "big": 6000}
    assert watching(tmp_path, "--looks", "1") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["replicas"]["vicuna"] in ("3 -> 1", "3 -> 2")
    proposed = configs.load(ServeConfig, str(tmp_path / "proposed.yaml"))
    assert {model.name for model in proposed.models} == {"vicuna", "big"}


def test_few_requests_change_nothing(gateway: Gateway, tmp_path: Path, capsys) -> None:
    (tmp_path / "serve.yaml").write_text(SERVED)
    gateway.requests = {"vicuna": 3, "big": 1}
    assert watching(tmp_path, "--looks", "2") == 0
    assert capsys.readouterr().out.count("place.quiet") == 2
    assert not (tmp_path / "proposed.yaml").exists()


def test_a_file_that_somebody_edits_ends_no_watch(
    gateway: Gateway, tmp_path: Path, monkeypatch, capsys
) -> None:
    served = tmp_path / "serve.yaml"
    served.write_text(SERVED)
    gateway.requests = {"vicuna": 30, "big": 30}
    get = gateway.get
    monkeypatch.setattr(
        httpx, "get", lambda url, **_: (get(url), served.write_text("models: ["))[0]
    )
    assert watching(tmp_path, "--looks", "2") == 0
    assert capsys.readouterr().out.count("The next look is in 1 min.") == 2


def test_a_key_that_is_not_there_is_a_sentence(tmp_path: Path, capsys) -> None:
    (tmp_path / "serve.yaml").write_text(SERVED)
    assert watching(tmp_path, "--key-env", "NOBODY_SET_THIS") == 2
    assert "NOBODY_SET_THIS, which is not set" in " ".join(capsys.readouterr().err.split())


def test_a_watch_that_would_write_over_what_is_served_is_refused(tmp_path: Path, capsys) -> None:
    file = str(tmp_path / "serve.yaml")
    watch = ("--watch", "http://gateway", "--serving", file, "--out", file)
    assert place(models_file(tmp_path), *SMALL, *watch) == 2
    assert "another one for what is proposed" in " ".join(capsys.readouterr().err.split())
