"""The whole loop, small, through the public command lines only."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.shell import Shell


def chat(api: str, model: str, text: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 8}
    request = urllib.request.Request(
        f"{api}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["choices"][0]["message"]["content"]


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own, while it starts workers
def test_raw_chats_become_a_served_model_and_a_report(
    ray_session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Shell(ray_session, tmp_path, monkeypatch)
    run("apps.data sample --world schoolbook --out sample --conversations 300 --questions 4")
    run("apps.data clean sample/sharegpt.json --out clean")
    ledger = json.loads((tmp_path / "clean/ledger.json").read_text())
    assert ledger["records"]["kept"] > 200

    run(
        "apps.train base --text sample/text.txt --out base --vocab-size 600 --hidden-size 64 "
        "--heads 2 --ffn-size 128 --tokens 4096 --threads 1"
    )
    run("apps.data pack clean --tokenizer base --max-length 256 --out pack")
    run("apps.train run --preset debug --base base --data pack --out run --steps 4 --workers 1")
    run("apps.train export run --out tuned")
    metrics = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    losses = [json.loads(row)["loss"] for row in metrics]
    assert losses[-1] < losses[0]

    config = tmp_path / "serve.yaml"
    models = [
        {"name": name, "path": name, "resources": {"cpus": 0.5}} for name in ("base", "tuned")
    ]
    config.write_text(yaml.safe_dump({"models": models, "page": {"enabled": False}}))
    with run.serving(config) as api:
        assert isinstance(chat(api, "tuned", "Hello"), str)
        run(
            f"apps.eval answer --questions sample/questions.jsonl --model base={api} tuned={api} "
            "--out eval --max-tokens 8"
        )
    run("apps.eval judge eval --judge offline")
    run("apps.eval report eval")
    report = json.loads((tmp_path / "eval/report.json").read_text())
    assert "not GPT-4" in (tmp_path / "eval/report.html").read_text()
    assert {"base", "tuned"} <= set(json.dumps(report).replace('"', " ").split())
