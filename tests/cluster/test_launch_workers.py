"""What the launcher of workers names them, and says where no gateway is at its address."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from apps.common.errors import ConfigError
from cluster.launch_workers import GatewayPool, jobs_name, machines_of_kind
from cluster.sky_jobs import Machines


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """The address of a server that says the same to everybody."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (404, '{"error": "no such page"}', "refuses: status 404"),
        (404, '{"detail": "Not Found"}', "refuses: status 404"),
        (403, '{"error": {"message": "Key x may not join."}}', "refuses: Key x may not join"),
        (200, '{"status": "ok"}', "lists no workers; check the gateway's address"),
        (200, '["a"]', "lists no workers"),
        (200, "{", "lists no workers"),
    ],
)
def test_what_is_no_gateway_is_a_sentence(status: int, body: str, sentence: str) -> None:
    with answering(status, body) as url, pytest.raises(ConfigError, match=sentence):
        GatewayPool(url, "vicuna", "sk").up()


def test_each_pools_jobs_have_a_name_of_their_own() -> None:
    names = [jobs_name(pool) for pool in ("vicuna", "vicuna-13b", "org/vicuna")]
    assert names == ["worker-vicuna", "worker-vicuna-13b", "worker-org-vicuna"]


def test_a_kind_whose_price_is_counted_is_the_one_that_is_rented() -> None:
    """The task file takes an L4, an L40S or an A100, whichever there is."""
    assert machines_of_kind("1xL4") == Machines(num_nodes=1, accelerators={"L4": 1})
    assert machines_of_kind("2xRTX-4090") == Machines(num_nodes=1, accelerators={"RTX4090": 2})
    assert machines_of_kind("worker") is machines_of_kind("0xL4") is None
    assert machines_of_kind("4xlarge") is None, "a size of machines"
