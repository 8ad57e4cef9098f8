"""Turns a cloud's spot notice into a Ray drain, so that training saves before the machine goes.

    python cluster/spot_watch.py                 # on every node; cluster/run_ray.sh starts it

Nobody else does: Ray does not read the clouds' notices, and SkyPilot 0.14 watches for them in
Kubernetes pods only. Polls the instance metadata of AWS, GCP or Azure; on a firm reclaim it runs
`ray drain-node` for this machine's node, which `ray.train.get_preemption_info()` then shows to
every rank. Standard library only. Ends when this machine's Ray ends, and not before: a metadata
service that does not answer, at the start or later, is asked again. A node is drained once, also
when the watcher is started again. With CRIA_LOGS set, Ray's logs are put there after the drain.

AWS: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
GCP: https://cloud.google.com/compute/docs/instances/preemptible
Azure: https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

METADATA_URL = "http://169.254.169.254"
GCP_NOTICE_S = 30.0
"""GCP tells that the machine is being reclaimed, not when; this is what it promises"""
AZURE_EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
AZURE_NAME = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """A firm announcement that this machine will be taken away."""

    seconds_left: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RayNode:
    """This machine's node in the Ray cluster that is ours."""

    node_id: str
    gcs_address: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Metadata:
    """HTTP client of the link-local metadata service."""

    url: str = METADATA_URL
    timeout_s: float = 2.0

    def get(self, path: str, *, method: str = "GET", **headers: str) -> str | None:
        """Body of a 200 answer; None for any other status.

        Raises OSError when the service does not answer.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, method=method, headers=named)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=self.timeout_s) as response:
                return response.read().decode()
        except urllib.error.HTTPError as error:
            error.close()
            return None


def aws_notice(metadata: Metadata) -> Notice | None:
    """The reclaim of an AWS spot instance; a mere rebalance recommendation is not one."""
    token = _aws_token(metadata)
    body = metadata.get("/latest/meta-data/spot/instance-action", X_aws_ec2_metadata_token=token)
    if body is None:
        return None
    action = json.loads(body)
    at = datetime.fromisoformat(action["time"])
    return Notice(seconds_left=_seconds_until(at), text=f"AWS: {action['action']} at {at}")


def _aws_token(metadata: Metadata) -> str:
    ttl = {"X_aws_ec2_metadata_token_ttl_seconds": "60"}
    return metadata.get("/latest/api/token", method="PUT", **ttl) or ""


def gcp_notice(metadata: Metadata) -> Notice | None:
    """The reclaim of a GCP spot or preemptible machine."""
    body = metadata.get("/computeMetadata/v1/instance/preempted", Metadata_Flavor="Google")
    if body is None or body.strip().upper() != "TRUE":
        return None
    return Notice(seconds_left=GCP_NOTICE_S, text="GCP: preempted")


def azure_notice(metadata: Metadata) -> Notice | None:
    """The reclaim of this Azure spot machine; its scale set's other machines are not meant."""
    body = metadata.get(AZURE_EVENTS, Metadata="true")
    events = json.loads(body)["Events"] if body else []
    preempts = [event for event in events if event["EventType"] == "Preempt"]
    if not preempts:
        return None
    name = (metadata.get(AZURE_NAME, Metadata="true") or "").strip()
    for event in preempts:
        if name in event["Resources"]:
            at = parsedate_to_datetime(event["NotBefore"]) if event["NotBefore"] else None
            left = _seconds_until(at) if at else 0.0
            return Notice(seconds_left=left, text=f"Azure: preempt at {at or 'once'}")
    return None


def _seconds_until(at: datetime) -> float:
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


Watch = Callable[[Metadata], Notice | None]
UNANSWERED = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError)
"""what a service raises that is down, restarts in the middle of an answer, or answers oddly"""


def find_cloud(metadata: Metadata) -> tuple[str, Watch] | None:
    """Name and watch of the cloud whose metadata service answers here; None elsewhere."""
    probes: list[tuple[str, Watch, Callable[[], str | None]]] = [
        ("AWS", aws_notice, lambda: _aws_token(metadata)),
        ("GCP", gcp_notice, lambda: metadata.get("/computeMetadata/v1/", Metadata_Flavor="Google")),
        ("Azure", azure_notice, lambda: metadata.get(AZURE_EVENTS, Metadata="true")),
    ]
    for name, watch, probe in probes:
        try:
            if probe():
                return name, watch
        except UNANSWERED:
            continue
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    pid: int
    program: str
    flags: dict[str, str]
    """Worked example: {"node_id": "ab"} of --node_id=ab."""


def own_processes(proc: Path = Path("/proc")) -> Iterator[Process]:
    """On a machine of many users, another's Ray is none of ours."""
    for cmdline in proc.glob("[0-9]*/cmdline"):
        try:
            program, *words = cmdline.read_bytes().decode(errors="replace").split("\0")
            is_own = cmdline.stat().st_uid == os.getuid()
        except OSError:
            continue  # the process ended meanwhile
        if is_own:
            flags = dict(word.lstrip("-").split("=", 1) for word in words if "=" in word)
            yield Process(pid=int(cmdline.parent.name), program=program, flags=flags)


def find_ray_node(gcs_port: int, proc: Path = Path("/proc")) -> RayNode | None:
    """This machine's node of the Ray whose head listens on `gcs_port`.

    Read from the raylet's own command line. SkyPilot runs a second Ray of its own beside ours; the
    port tells them apart.
    """
    for process in own_processes(proc):
        address, node_id = process.flags.get("gcs-address", ""), process.flags.get("node_id")
        is_raylet = process.program.endswith("/raylet")
        if is_raylet and node_id and address.endswith(f":{gcs_port}"):
            return RayNode(node_id=node_id, gcs_address=address)
    return None


def drain(node: RayNode, notice: Notice) -> bool:
    """Tell Ray that the node goes; True when Ray accepted it."""
    command = [
        *("ray", "drain-node", "--address", node.gcs_address, "--node-id", node.node_id),
        *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", notice.text),
        *("--deadline-remaining-seconds", str(int(notice.seconds_left))),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        say(f"Ray did not accept the drain: {result.stderr.strip()[-500:]}")
    return result.returncode == 0


def poll(watch: Watch, metadata: Metadata) -> Notice | None:
    """One look at the metadata; a service that does not answer or answers oddly is told."""
    try:
        return watch(metadata)
    except UNANSWERED as error:
        say(f"the metadata service did not answer as documented: {error!r}; asking again")
        return None


@dataclass(kw_only=True, slots=True)
class Watcher:
    """Looks at the clouds until one is known, then at its notice."""

    metadata: Metadata
    watch: Watch | None = None
    told_none: bool = False

    def look(self) -> Notice | None:
        if self.watch is None:
            self._find()
        return poll(self.watch, self.metadata) if self.watch else None

    def _find(self) -> None:
        found = find_cloud(self.metadata)
        if found:
            cloud, self.watch = found
            say(f"watching {cloud}")
        elif not self.told_none:
            self.told_none = True
            say("no cloud announces a reclaim here; the timed checkpoints are the guarantee")


def follow(args: argparse.Namespace) -> None:
    """Poll until a notice came and Ray took it, or this machine's Ray is gone."""
    watcher = Watcher(metadata=Metadata(url=args.metadata_url))
    started = time.monotonic()
    while True:
        node = find_ray_node(args.gcs_port)
        if node is None and time.monotonic() - started > args.start_grace_s:
            say(f"no Ray on port {args.gcs_port} here any more")
            return
        if node and was_drained(node, args.notice_file):
            say(f"node {node.node_id} was drained already")
            return
        notice = watcher.look() if node else None
        if node and notice:
            say(f"{notice.text}, {notice.seconds_left:.0f} s left; draining node {node.node_id}")
            if drain(node, notice):
                args.notice_file.write_text(f"{node.node_id} {notice.text}\n")
                ship_logs()
                return
        time.sleep(args.interval_s)


def was_drained(node: RayNode, notice_file: Path) -> bool:
    """Whether the notice was of this node; one of an earlier Ray on this machine is removed."""
    if not notice_file.exists():
        return False
    if notice_file.read_text().startswith(node.node_id):
        return True
    notice_file.unlink()
    return False


def ship_logs() -> None:
    """In a program of its own: it needs the packages of the bucket's cloud, this one does not."""
    if uri := os.environ.get("CRIA_LOGS"):
        root = Path(__file__).resolve().parents[1]
        subprocess.run([sys.executable, "-m", "cluster.ship_logs", uri], cwd=root, check=False)


def drain_now(gcs_port: int, seconds_left: float) -> int:
    """Drain without asking a cloud: the caller, a pod's preStop hook, was told already."""
    node = find_ray_node(gcs_port)
    if node is None:
        say(f"no Ray on port {gcs_port} here")
        return 1
    return 0 if drain(node, Notice(seconds_left=seconds_left, text="the pod is stopping")) else 1


def say(text: str) -> None:
    print(f"spot_watch: {text}", flush=True)


def main() -> int:
    summary = __doc__.partition("\n")[0] if __doc__ else None
    parser = argparse.ArgumentParser(prog="spot_watch", description=summary)
    parser.add_argument("--gcs-port", type=int, default=6379, help="port of our Ray's head")
    parser.add_argument("--metadata-url", default=METADATA_URL, help="metadata service, for tests")
    parser.add_argument("--interval-s", type=float, default=2.0, help="seconds between two looks")
    parser.add_argument(
        "--start-grace-s", type=float, default=300.0, help="seconds that Ray has to appear"
    )
    parser.add_argument(
        "--notice-file",
        type=Path,
        default=Path.home() / ".cria-spot-notice",
        help="written when a notice came; submit_job.py reads it",
    )
    parser.add_argument(
        "--now", type=float, metavar="SECONDS", help="drain at once: the machine has SECONDS left"
    )
    args = parser.parse_args()
    if args.now is not None:
        return drain_now(args.gcs_port, args.now)
    follow(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
