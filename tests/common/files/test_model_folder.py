"""Model folders from a hub that answers, fails or hangs up: a real server, the real client."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from apps.common.files.model_folder import model_folder

COMMIT = "0" * 40
PROGRAM = """
import os
import sys
from apps.common.errors import CriaError
from apps.common.files.model_folder import model_folder, text_folder
try:
    print(sorted(os.listdir(text_folder("org/name"))))
    print(model_folder("org/name"))
except CriaError as error:
    sys.exit(f"{error.exit_code} {error.sentence}")
"""
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "added_tokens.json": b"{}",
    "weights.bin": b"a pickle",
    "LICENSE": b"the terms",
    "consolidated.safetensors": b"the same weights in another layout",
    "onnx/config.json": b"{}",
}


class Hub(BaseHTTPRequestHandler):
    mode = "good"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.mode == "broken":
            self.send_error(500, "out of order")
        elif self.mode == "hangs up" or (
            self.mode == "hangs up later" and "/api/" not in self.path
        ):
            self.connection.close()
        elif self.path.startswith("/api/"):
            listed = [{"rfilename": name} for name in FILES]
            self._answer(json.dumps({"id": "org/name", "sha": COMMIT, "siblings": listed}).encode())
        else:
            self._answer(FILES[self.path.rsplit("/", 1)[1]])

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def hub(mode: str) -> Iterator[str]:
    handler = type("Handler", (Hub,), {"mode": mode})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def fetch(url: str, cache: Path) -> subprocess.CompletedProcess[str]:
    env = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def test_a_hub_gives_a_folder_without_pickles(tmp_path: Path) -> None:
    with hub("good") as url:
        done = fetch(url, tmp_path)
    assert done.returncode == 0, done.stderr
    texts, folder = done.stdout.splitlines()
    assert texts == "['added_tokens.json', 'config.json']"
    fetched = ["LICENSE", "added_tokens.json", "config.json"]
    assert sorted(path.name for path in Path(folder).iterdir()) == fetched


@pytest.mark.parametrize("mode", ["broken", "hangs up", "hangs up later", "nobody there"])
def test_a_hub_that_fails_is_one_sentence(tmp_path: Path, mode: str) -> None:
    with hub(mode) as url:
        done = fetch("http://127.0.0.1:9" if mode == "nobody there" else url, tmp_path)
    assert done.stderr.startswith("2 'org/name' is neither a folder nor a model that the hub gave")
    assert done.stderr.strip().count("\n") == 0 and "Traceback" not in done.stderr


def test_a_bucket_s_model_is_fetched_again_when_it_was_trained_again(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same place, of the same shape: every file has the size it had."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    s3.create_bucket(Bucket="models")
    put = partial(s3.put_object, Bucket="models")
    put(Key="tuned/config.json", Body=b"{}")
    for weights in (b"old", b"new"):
        put(Key="tuned/model.safetensors", Body=weights)
        folder = Path(model_folder("s3://models/tuned"))
        assert (folder / "model.safetensors").read_bytes() == weights
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert model_folder("s3://models/tuned") == str(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_a_file_that_a_bucket_has_no_more_is_not_read_from_the_cache(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights in one file come before an index of several; a folder beside them is no file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    s3.create_bucket(Bucket="models")
    put = partial(s3.put_object, Bucket="models")
    for name in ("config.json", "model.safetensors", "original/params.json"):
        put(Key=f"grown/{name}", Body=b"{}")
    folder = Path(model_folder("s3://models/grown"))
    assert {path.name for path in folder.glob("[!.]*")} == {"config.json", "model.safetensors"}
    s3.delete_object(Bucket="models", Key="grown/model.safetensors")
    sharded = {"model.safetensors.index.json", "model-00001.safetensors"}
    for name in sharded:
        put(Key=f"grown/{name}", Body=b"{}")
    assert model_folder("s3://models/grown") == str(folder)
    assert {path.name for path in folder.glob("[!.]*")} == {"config.json", *sharded}
