"""kill -9 of the whole command: what is stored is never asked for again."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apps.eval import journal
from apps.eval.plan import parse_record
from benchmarks.judge import endpoint, folder, stats, unanswered

CALLS = 60


@pytest.mark.ray
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, ray_session) -> None:
    folder(str(tmp_path), CALLS)
    command = [sys.executable, "-m", "apps.eval", "judge", str(tmp_path), "--judge", "judge-4"]
    command += ["--concurrency", "6", "--self-checks", "0", "--no-canaries", "--max-usd", "50"]
    command += ["--requests-per-min", "1e6", "--tokens-per-min", "1e9"]
    command += ["--usd-per-million-prompt-tokens", "30"]
    command += ["--usd-per-million-completion-tokens", "60"]
    with endpoint(latency_s=0.3) as url:
        env = {**os.environ, **ray_session.child_env()}
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 90
        while len(journal.read_raw(str(tmp_path))) < CALLS // 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        process.wait()
        stored = {record["key"] for record in journal.read_raw(str(tmp_path))}
        assert len(stored) < CALLS
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        found = stats(url)
    records = journal.read_raw(str(tmp_path))
    assert len({record["key"] for record in records}) == len(records) == CALLS
    assert stored <= {record["key"] for record in records}
    assert all(parse_record(record)["status"] == "ok" for record in records)
    assert found["served_twice"] <= len(unanswered(str(tmp_path))) <= 6
