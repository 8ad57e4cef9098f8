"""Parts of the service are killed while 32 clients ask; the full set takes some ten minutes."""

import json
import subprocess
import sys

import pytest

from tests.serve.chaos import ROOT

pytestmark = pytest.mark.slow


def outcome_of(*blows: str, timeout_s: float = 560) -> dict:
    command = [sys.executable, "-W", "ignore", "-m", "tests.serve.chaos", *blows]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"requests"')]
    assert lines, done.stderr[-3000:]
    return json.loads(lines[0])


@pytest.mark.timeout(600)
def test_no_client_sees_what_was_killed() -> None:
    outcome = outcome_of("replica", "gateway", "proxy", "controller", "drain")
    assert outcome["requests"] > 100
    assert not outcome["failed"]
    assert not outcome["different"]
    assert outcome["unexcused"] == 0, "a stream reconnects only when its way to it was lost"


@pytest.mark.timeout(2400)
def test_no_client_sees_any_of_it() -> None:
    replicas, gateways = ["replica"] * 10, ["gateway"] * 3
    outcome = outcome_of(
        *replicas[:5], "proxy", *gateways, "node", *replicas[5:], "controller", "drain",
        timeout_s=2300,
    )  # fmt: skip
    assert outcome["requests"] > 500
    assert (outcome["failed"], outcome["different"], outcome["unexcused"]) == ([], [], 0)
