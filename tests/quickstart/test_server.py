"""The demo waits for its server as long as that gets on."""

import http.server
import subprocess
import sys
import threading
import time

import pytest

from apps.common.command.events import Reporter
from apps.common.errors import CriaError
from apps.quickstart import server
from apps.quickstart.server import wait_until_ready

BUSY = "while True: pass"
IDLE = "import time; time.sleep(600)"


class _Ready(http.server.BaseHTTPRequestHandler):
    """Not ready until `since_s` has passed."""

    since_s = 0.0

    def do_GET(self) -> None:
        self.send_response(200 if time.monotonic() > self.since_s else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Ready) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def waits(url: str, code: str) -> None:
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        try:
            wait_until_ready(url, child, Reporter("json"))
        finally:
            child.kill()


def test_a_server_that_works_is_waited_for_and_the_wait_is_told(url, monkeypatch, capsys) -> None:
    monkeypatch.setattr(server, "_STALL_S", 1.5)
    monkeypatch.setattr(server, "_LEAST_WORK_S", 0.05)
    monkeypatch.setattr(server, "_TELL_EVERY_S", 1.0)
    monkeypatch.setattr(_Ready, "since_s", time.monotonic() + 5)
    waits(url, BUSY)
    assert "Waiting for the server to load both models" in capsys.readouterr().out


def test_a_server_that_hangs_is_given_up(url, monkeypatch) -> None:
    monkeypatch.setattr(server, "_STALL_S", 1.5)
    monkeypatch.setattr(server, "_WORKER_PREFIX", "none of the machine's processes")
    monkeypatch.setattr(_Ready, "since_s", time.monotonic() + 600)
    with pytest.raises(CriaError, match="has done nothing"):
        waits(url, IDLE)


def test_a_server_that_dies_ends_the_wait(url, monkeypatch) -> None:
    monkeypatch.setattr(_Ready, "since_s", time.monotonic() + 600)
    with pytest.raises(CriaError, match="stopped with exit code 3"):
        waits(url, "raise SystemExit(3)")
