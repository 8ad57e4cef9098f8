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


class MetadataServer(ThreadingHTTPServer):
    """Answers like one cloud; `reclaim()` makes the notice appear."""

    def __init__(self, cloud: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cloud = cloud
        self.reclaimed = False
        self.other_machine = False
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
