"""A real Prometheus, with our configuration, finds every metric of every panel at the real apps."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from apps.common.command.runtime import free_port, ray_session
from apps.common.files import config as configs
from apps.common.text.templates import load_template, write_template
from apps.common.text.tokenizer import load_tokenizer
from apps.serve.admission.keys import digest
from tests.cluster.promql import MONITORING, asked, panels, recorded
from tests.made import byte_level_folder
from tests.serve.models import write_model
from tests.train.conftest import ROW_TOKENS, save_model, save_pack, small_config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        shutil.which("prometheus") is None,
        reason="prometheus is not installed (Debian: prometheus)",
    ),
]

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 300.0
KEY = "sk-cria-of-this-test"


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """A Ray for the apps, and the Prometheus that looks at it."""

    env: Mapping[str, str]
    """with which the apps join that Ray"""
    folder: Path
    gateway_port: int
    prometheus_url: str

    def run(self, *argv: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", *argv], cwd=ROOT, env=self.env, capture_output=True, text=True,
            check=False, timeout=WAIT_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    def ask(self, path: str, **params: str | float) -> Any:
        answer = httpx.get(f"{self.prometheus_url}/api/v1/{path}", params=params, timeout=30)
        body = answer.json()
        assert body["status"] == "success", body
        return body["data"]

    def unseen(self, metrics: set[str]) -> set[str]:
        """Those of which Prometheus has had no sample so far."""
        return {name for name in metrics if not self.ask("series", **{"match[]": name, "start": 0})}

    def empty_panels(self, board: str = "") -> list[str]:
        """Those that have drawn nothing in the last hour."""
        now_s = time.time()
        window = {"start": now_s - 3000, "end": now_s, "step": 1.0}
        return [
            f"{title}: {expression}"
            for title, expression in panels()
            if title.startswith(board)
            and not any(
                value != "NaN"
                for series in self.ask("query_range", query=expression, **window)["result"]
                for _, value in series["values"]
            )
        ]

    def wait_for(self, app: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Until every metric of that app has been scraped."""
        prefix = "cria_" if app == "serve" else f"ray_cria_{app}_"
        wanted = {name for name in asked() if name.startswith(prefix)}
        assert wanted
        until(lambda: not self.unseen(wanted), meanwhile, lambda: str(self.unseen(wanted)))


def until(
    holds: Callable[[], bool], meanwhile: Callable[[], object], missing: Callable[[], str]
) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s, missing()
        meanwhile()
        time.sleep(0.5)


@contextlib.contextmanager
def process(*argv: str, log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stream:
        started = subprocess.Popen(
            argv, cwd=ROOT, env={**os.environ, **env}, stdout=stream, stderr=stream
        )
    try:
        yield started
    finally:
        started.terminate()
        started.wait(timeout=60)


def configuration(discovery: Path, gateway_port: int, key_file: Path) -> str:
    """cluster/monitoring/prometheus.yml with this test's addresses and a look each second."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(MONITORING / "alerts.yml")]
    ray, gateway = config["scrape_configs"]
    ray["file_sd_configs"] = [{"files": [str(discovery)], "refresh_interval": "1s"}]
    gateway["static_configs"] = [{"targets": [f"127.0.0.1:{gateway_port}"]}]
    gateway["authorization"] = {"credentials_file": str(key_file)}
    return yaml.safe_dump(config)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("RAY_metrics_report_interval_ms", "250")
        session = stack.enter_context(ray_session(num_cpus=4, dashboard=True))
        assert session.token_path is not None
        discovery = Path(session.token_path).with_name("prom_metrics_service_discovery.json")
        until(discovery.exists, lambda: None, lambda: f"{discovery} is not there")
        (folder / "key").write_text(KEY)
        gateway_port, port = free_port(), free_port()
        config = folder / "prometheus.yml"
        config.write_text(configuration(discovery, gateway_port, folder / "key"))
        prometheus = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb"]
        log = folder / "prometheus.log"
        stack.enter_context(process(*prometheus, f"--web.listen-address=127.0.0.1:{port}", log=log))
        url = f"http://127.0.0.1:{port}"
        until(lambda: is_up(f"{url}/-/ready"), lambda: None, log.read_text)
        yield Watched(
            env={**os.environ, **session.child_env(), "OMP_NUM_THREADS": "1"},
            folder=folder,
            gateway_port=gateway_port,
            prometheus_url=url,
        )


def is_up(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, timeout=5).status_code == 200
    return False


def test_data_is_seen(watched: Watched) -> None:
    folder = watched.folder
    said = [("human", "How do I boil egg number {}?"), ("gpt", "Eight minutes in hot water, {}.")]
    records: list[dict[str, Any]] = [
        {"id": str(i), "conversations": [{"from": w, "value": t.format(i)} for w, t in said]}
        for i in range(400)
    ]
    (folder / "dump.json").write_text(json.dumps([*records, {"id": "broken"}]))
    tokenizer = byte_level_folder(folder / "tokenizer")
    watched.run("apps.data", "clean", str(folder / "dump.json"), "--out", str(folder / "clean"))
    pack = ["--tokenizer", tokenizer, "--max-length", "256", "--out", str(folder / "pack")]
    watched.run("apps.data", "pack", str(folder / "clean"), *pack)
    watched.wait_for("data")


def test_training_is_seen(watched: Watched) -> None:
    base, pack = watched.folder / "base", watched.folder / "rows"
    byte_level_folder(base)
    write_template(str(base), load_template("llama-2", load_tokenizer(str(base))))
    save_model(base)
    pack.mkdir()
    save_pack(pack, base, num_rows=22, row_tokens=ROW_TOKENS, template="llama-2")
    config = small_config(base, pack, watched.folder / "run")
    metrics = replace(config.metrics, usd_per_hour=36.0, peak_tflops=1.0, val_every_steps=20)
    settings = watched.folder / "run.yaml"
    settings.write_text(configs.dump(replace(config, steps=240, metrics=metrics)))
    places = [f"--{name}={getattr(config, name)}" for name in ("base", "data", "out")]
    watched.run("apps.train", "run", "--config", str(settings), *places)
    watched.wait_for("train")


def test_serving_is_seen(watched: Watched) -> None:
    model = {"name": "one", "path": write_model(watched.folder / "model", 1), "replicas": 1}
    prices = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 2.0}
    pool = {"name": "many", "engine": "pool", "options": {"members": [{"model": "one"}]}}
    key = {"name": "test", "sha256": digest(KEY), "admin": True, "usd_per_day": 5.0}
    served = watched.folder / "serve.yaml"
    served.write_text(
        yaml.safe_dump(
            {
                "models": [{**model, "prices": prices, "resources": {"cpus": 0.5}}, pool],
                "gateway": {"port": watched.gateway_port, "api_keys": [key]},
                "page": {"enabled": False},
            }
        )
    )
    url = f"http://127.0.0.1:{watched.gateway_port}"
    command = [sys.executable, "-m", "apps.serve", "run", str(served)]
    log = watched.folder / "serve.log"
    headers = {"authorization": f"Bearer {KEY}"}
    with (
        process(*command, log=log, **watched.env),
        httpx.Client(base_url=url, headers=headers, timeout=60) as client,
    ):

        def chat() -> None:
            for model in ("one", "many", "nobody"):
                hello = {"role": "user", "content": "Hello there"}
                body = {"model": model, "messages": [hello], "max_tokens": 8}
                client.post("/v1/chat/completions", json=body)

        until(lambda: is_up(f"{url}/ready"), lambda: None, log.read_text)
        watched.wait_for("serve", chat)
        # A rate needs requests between two looks at the numbers.
        until(
            lambda: not watched.empty_panels("serve"),
            chat,
            lambda: "\n".join(watched.empty_panels("serve")),
        )


def test_judging_is_seen(watched: Watched) -> None:
    log = watched.folder / "judge.log"
    script = str(ROOT / "tests/eval/scripted_judge.py")
    faults = ["--latency-s", "0.2", "--fault-share", "0.2", "--requests-per-min", "600"]
    with process(sys.executable, script, *faults, log=log, PYTHONPATH=str(ROOT)):
        until(lambda: log.read_text().startswith("http"), lambda: None, log.read_text)
        url = log.read_text().split()[0]
        out, questions = str(watched.folder / "eval"), watched.folder / "questions.jsonl"
        lines = [
            json.dumps({"question_id": str(i), "category": "writing", "turns": [f"Say {i} words."]})
            for i in range(40)
        ]
        questions.write_text("\n".join(lines) + "\n")
        models = [f"base={url}", f"tuned={url}"]
        watched.run(
            "apps.eval", "answer", "--questions", str(questions), "--out", out, "--model", *models
        )
        prices = ["--usd-per-million-prompt-tokens", "30"]
        prices += ["--usd-per-million-completion-tokens", "60", "--max-usd", "20"]
        watched.run("apps.eval", "judge", out, "--judge", f"judge={url}", *prices)
        watched.wait_for("eval")


def test_every_panel_has_drawn_something(watched: Watched) -> None:
    """After the apps have run: each expression, with its labels and its arithmetic, has values."""
    until(lambda: not watched.unseen(recorded()), lambda: None, lambda: "the rules were not run")
    assert watched.empty_panels() == []
