"""The spot watcher against a metadata service that speaks as the clouds document it."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cluster import spot_watch

NODE_ID = "ab" * 28
OUTAGES = {
    "hangs up": b"",
    "is no HTTP": b"rebooting\r\n\r\n",
    "breaks off": b"HTTP/1.0 200 OK\r\nContent-Length: 900\r\n\r\n{",
    "has an error": b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    "answers other JSON": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    "answers a page": b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
}
"""what a metadata service was seen to do while it restarts"""


class MetadataServer(ThreadingHTTPServer):
    """Answers like one cloud; `reclaim()` makes the notice appear."""

    def __init__(self, cloud: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cloud = cloud
        self.reclaimed = False
        self.other_machine = False
        self.outage = ""
        self.paths: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def reclaim(self) -> None:
        self.reclaimed = True

    def answer(self, method: str, path: str, headers: dict[str, str]) -> str | None:
        self.paths.append(path)
        return getattr(self, f"{self.cloud}_answer")(method, path, headers)

    def aws_answer(self, method: str, path: str, headers: dict[str, str]) -> str | None:
        if (method, path) == ("PUT", "/latest/api/token"):
            return "token" if "x-aws-ec2-metadata-token-ttl-seconds" in headers else None
        if headers.get("x-aws-ec2-metadata-token") != "token" or not self.reclaimed:
            return None
        at = (datetime.now(UTC) + timedelta(seconds=120)).strftime("%Y-%m-%dT%H:%M:%SZ")
        action = json.dumps({"action": "terminate", "time": at})
        return {"/latest/meta-data/spot/instance-action": action}.get(path)

    def gcp_answer(self, method: str, path: str, headers: dict[str, str]) -> str | None:
        if headers.get("metadata-flavor") != "Google":
            return None
        preempted = "TRUE" if self.reclaimed else "FALSE"
        return {
            "/computeMetadata/v1/": "instance/",
            "/computeMetadata/v1/instance/preempted": preempted,
        }.get(path)

    def azure_answer(self, method: str, path: str, headers: dict[str, str]) -> str | None:
        if headers.get("metadata") != "true":
            return None
        at = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
        machine = "another" if self.other_machine else "this"
        event = {"EventType": "Preempt", "Resources": [machine], "NotBefore": at}
        return {
            spot_watch.AZURE_EVENTS: json.dumps({"Events": [event] if self.reclaimed else []}),
            spot_watch.AZURE_NAME: "this",
        }.get(path)


class Handler(BaseHTTPRequestHandler):
    server: MetadataServer

    def do_GET(self) -> None:
        if self.server.outage:
            self.server.paths.append("outage")
            self.wfile.write(OUTAGES[self.server.outage])
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.server.answer(self.command, self.path, headers)
        self.send_response(200 if body is not None else 404)
        self.end_headers()
        self.wfile.write((body or "").encode())

    do_PUT = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(params=["aws", "gcp", "azure"])
def cloud(request: pytest.FixtureRequest) -> Iterator[MetadataServer]:
    with MetadataServer(request.param) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_each_cloud_is_recognised_and_its_notice_is_read(cloud: MetadataServer) -> None:
    metadata = spot_watch.Metadata(url=cloud.url)
    found = spot_watch.find_cloud(metadata)
    assert found is not None and found[0].lower() == cloud.cloud
    assert found[1](metadata) is None
    cloud.reclaim()
    notice = found[1](metadata)
    promised_s = {"aws": 120, "gcp": 30, "azure": 30}[cloud.cloud]
    assert notice is not None and promised_s - 5 <= notice.seconds_left <= promised_s


@pytest.mark.parametrize("cloud", ["azure"], indirect=True)
def test_the_reclaim_of_another_machine_of_the_scale_set_is_not_ours(cloud: MetadataServer) -> None:
    cloud.other_machine = True
    cloud.reclaim()
    assert spot_watch.azure_notice(spot_watch.Metadata(url=cloud.url)) is None


@pytest.mark.parametrize("cloud", ["aws"], indirect=True)
def test_a_rebalance_recommendation_drains_nothing(cloud: MetadataServer) -> None:
    spot_watch.aws_notice(spot_watch.Metadata(url=cloud.url))
    assert not any("rebalance" in path for path in cloud.paths)


def test_no_metadata_service_means_no_cloud() -> None:
    assert spot_watch.find_cloud(spot_watch.Metadata(url="http://127.0.0.1:9")) is None


def test_our_ray_is_told_from_skypilots_own_by_its_port(tmp_path: Path) -> None:
    for pid, port, node in (("11", 6380, "cd" * 28), ("12", 6379, NODE_ID)):
        argv = ["/site/raylet/raylet", f"--node_id={node}", f"--gcs-address=10.0.0.5:{port}", ""]
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_text("\0".join(argv))
    ours = spot_watch.RayNode(node_id=NODE_ID, gcs_address="10.0.0.5:6379")
    assert spot_watch.find_ray_node(6379, proc=tmp_path) == ours
    assert spot_watch.find_ray_node(7000, proc=tmp_path) is None


@pytest.fixture
def raylet(tmp_path: Path) -> Iterator[int]:
    """A process whose command line is a raylet's; yields the port in it."""
    folder = tmp_path / "raylet"
    folder.mkdir()
    (folder / "raylet").symlink_to("/bin/sh")
    port = 20_000 + os.getpid() % 10_000
    flags = [f"--node_id={NODE_ID}", f"--gcs-address=10.0.0.5:{port}"]
    argv = [str(folder / "raylet"), "-c", "read line", *flags]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        yield port
        process.kill()


def command(cloud: MetadataServer, *, gcs_port: int, notice_file: Path) -> list[str]:
    flags = {
        "--metadata-url": cloud.url,
        "--gcs-port": gcs_port,
        "--notice-file": notice_file,
        "--interval-s": 0.05,
        "--start-grace-s": 0.2,
    }
    words = [str(word) for flag in flags.items() for word in flag]
    return [sys.executable, spot_watch.__file__, *words]


def test_a_notice_drains_this_node_once_ray_accepts_it(
    cloud: MetadataServer, raylet: int, tmp_path: Path
) -> None:
    calls, notice = tmp_path / "calls", tmp_path / "notice"
    fake_ray = tmp_path / "ray"  # refuses the first time, as a head that is busy
    fake_ray.write_text(f'#!/bin/sh\necho "$*" >>{calls}\n[ $(wc -l <{calls}) -gt 1 ]\n')
    fake_ray.chmod(0o755)
    watcher = subprocess.Popen(
        command(cloud, gcs_port=raylet, notice_file=notice),
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        while len(cloud.paths) < 10:
            time.sleep(0.02)
        assert not calls.exists()
        cloud.reclaim()
        output, _ = watcher.communicate(timeout=30)
    finally:
        watcher.kill()
    refused, accepted = calls.read_text().splitlines()
    assert accepted.startswith(f"drain-node --address 10.0.0.5:{raylet} --node-id {NODE_ID}")
    assert "--reason DRAIN_NODE_REASON_PREEMPTION" in accepted
    assert int(accepted.rpartition(" ")[2]) > 20
    assert watcher.returncode == 0 and notice.exists()
    assert "did not accept" in output and refused


@pytest.fixture
def ray_calls(tmp_path: Path) -> Path:
    """Where a `ray` that takes every drain writes how it was called."""
    calls = tmp_path / "calls"
    calls.touch()
    (tmp_path / "ray").write_text(f'#!/bin/sh\necho "$*" >>{calls}\n')
    (tmp_path / "ray").chmod(0o755)
    return calls


def watch(cloud: MetadataServer, raylet: int, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(cloud, gcs_port=raylet, notice_file=folder / "notice"),
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
    )


def seen(cloud: MetadataServer, count: int) -> None:
    """Waits until the watcher asked `count` more times."""
    deadline_s, until = time.monotonic() + 30, len(cloud.paths) + count
    while len(cloud.paths) < until:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@pytest.mark.parametrize("at_start", [True, False], ids=["at the start", "later"])
@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_of_the_metadata_service_is_survived(
    cloud: MetadataServer,
    raylet: int,
    tmp_path: Path,
    ray_calls: Path,
    outage: str,
    at_start: bool,
) -> None:
    if outage.startswith("answers") and at_start:
        pytest.skip("a service that answers is taken for a cloud's; only one cloud's is there")
    cloud.outage = outage if at_start else ""
    with watch(cloud, raylet, tmp_path) as watcher:
        seen(cloud, 6)
        cloud.outage = outage
        seen(cloud, 6)
        assert watcher.poll() is None and ray_calls.read_text() == ""
        cloud.reclaim()
        cloud.outage = ""
        watcher.communicate(timeout=30)
    (call,) = ray_calls.read_text().splitlines()
    assert f"--node-id {NODE_ID}" in call


@pytest.mark.parametrize("cloud", ["gcp"], indirect=True)
def test_a_node_is_drained_once_however_often_the_watcher_is_started(
    cloud: MetadataServer, raylet: int, tmp_path: Path, ray_calls: Path
) -> None:
    cloud.reclaim()
    for _ in range(3):
        with watch(cloud, raylet, tmp_path) as watcher:
            watcher.communicate(timeout=30)
    assert len(ray_calls.read_text().splitlines()) == 1
    assert (tmp_path / "notice").read_text().startswith(NODE_ID)


@pytest.mark.parametrize("cloud", ["gcp"], indirect=True)
def test_the_notice_of_an_earlier_ray_is_forgotten(
    cloud: MetadataServer, raylet: int, tmp_path: Path, ray_calls: Path
) -> None:
    (tmp_path / "notice").write_text("cd" * 28 + " GCP: preempted\n")
    with watch(cloud, raylet, tmp_path) as watcher:
        seen(cloud, 3)
        assert not (tmp_path / "notice").exists()
        watcher.kill()
        watcher.communicate(timeout=30)
    assert ray_calls.read_text() == ""


def test_a_pods_stop_hook_drains_at_once(raylet: int, tmp_path: Path) -> None:
    fake_ray = tmp_path / "ray"
    fake_ray.write_text(f'#!/bin/sh\necho "$*" >{tmp_path}/calls\n')
    fake_ray.chmod(0o755)
    subprocess.run(
        [sys.executable, spot_watch.__file__, "--now", "25", "--gcs-port", str(raylet)],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=True,
    )
    assert (tmp_path / "calls").read_text().endswith("--deadline-remaining-seconds 25\n")


@pytest.mark.parametrize("cloud", ["gcp"], indirect=True)
def test_the_watcher_ends_with_this_machines_ray(cloud: MetadataServer, tmp_path: Path) -> None:
    watcher = subprocess.run(
        command(cloud, gcs_port=1, notice_file=tmp_path / "notice"),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "no Ray on port 1" in watcher.stdout
