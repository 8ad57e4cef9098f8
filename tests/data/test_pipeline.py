"""On Ray: any number of workers, killed or not, leaves the same bytes."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from apps.common.command.events import Reporter
from apps.common.errors import CriaError, InputError
from apps.data import clean, pipeline
from apps.data.config import CleanConfig
from apps.data.units import Process, RunUnits, Unit, run_serially, split_done
from tests.data import corpus
from tests.data.commands import conversation, digests, write_dump

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning"),  # inside Ray Data
]


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dump") / "dump.json"
    records = list(corpus.conversations(250, seed=2, broken=0))
    path = write_dump(path, records)
    damaged = path.read_bytes().replace(b'"from":"gpt"', b'"from":"\xff"', 2)
    path.write_bytes(damaged)
    return path


def run_on(run_units: RunUnits, dump: Path, out: Path) -> dict[str, str]:
    """Clean with 1 MB ranges and shards; digests of everything that was written."""
    config = CleanConfig(inputs=(str(dump),), out=str(out), profile="strict", unit_mb=1, shard_mb=1)
    resolved, files = clean.prepare(config)
    clean.run(resolved, files, Reporter("json"), run_units)
    return digests(out)


@pytest.fixture(scope="module")
def expected(dump: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    found = run_on(run_serially, dump, tmp_path_factory.mktemp("serial") / "out")
    assert len(found) >= 4
    return found


def test_eight_workers_leave_the_bytes_of_one_process(
    dump: Path, expected: dict[str, str], ray_session: Any, tmp_path: Path
) -> None:
    assert run_on(pipeline.ray_units(8), dump, tmp_path / "out") == expected


def test_a_killed_run_goes_on_and_leaves_the_same_bytes(
    dump: Path, expected: dict[str, str], ray_session: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "apps.data", "clean", str(dump), "--out", str(out)]
    command += ["--profile", "strict", "--unit-mb", "1", "--shard-mb", "1", "--workers", "1"]
    env = {**os.environ, **ray_session.child_env()}
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as process:
        _wait(lambda: len(list(out.glob("_work/clean-*.json"))) >= 2)
        process.send_signal(signal.SIGKILL)
    assert not (out / "COMMITTED.json").exists()
    done_before: list[int] = []

    def run_units(units: Any, process: Any, folder: str, on_done: Any = None) -> list[Any]:
        done_before.append(len(split_done(units, process, folder)[0]))
        return pipeline.run_units(units, process, folder, on_done, workers=1)

    assert run_on(run_units, dump, out) == expected
    assert done_before[0] == 1 and done_before[1] >= 2


def _wait(is_true: Callable[[], bool], timeout_s: float = 120, every_s: float = 0.02) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(every_s)


@dataclass(frozen=True, slots=True)
class Given:
    i: int
    flags: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    i: int


def die_once(args: Given, folder: str) -> Done:
    flag = Path(args.flags) / str(args.i)
    if args.i % 3 == 1 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Done(args.i)


def test_a_worker_with_other_sources_is_a_sentence(ray_session: Any, tmp_path: Path) -> None:
    unit = Unit(stage="die", name="0", args=Given(0))
    batch = pa.table({"units": [pickle.dumps([("die-0", unit)])]})
    process = Process(die_once, Done)
    (row,) = pipeline._finish_units(batch, process=process, folder=str(tmp_path))  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(InputError, match="with one version everywhere"):
        raise pickle.loads(row["error"].to_pylist()[0])


def test_a_unit_whose_process_dies_is_run_again(ray_session: Any, tmp_path: Path) -> None:
    units = [Unit(stage="die", name=str(i), args=Given(i, str(tmp_path))) for i in range(3)]
    process = Process(die_once, Done)
    done = pipeline.run_units(units, process, str(tmp_path / "work"), workers=2)
    assert done == [Done(0), Done(1), Done(2)]
    assert (tmp_path / "1").exists()


@dataclass(frozen=True, slots=True)
class Named:
    task: str


def own_name(args: Given, folder: str) -> Named:
    return Named(ray.get_runtime_context().get_task_name() or "")


def test_the_dashboard_names_a_task_by_what_it_does(ray_session: Any, tmp_path: Path) -> None:
    units = [Unit(stage="clean", name=str(i), args=Given(i)) for i in range(3)]
    done = pipeline.run_units(units, Process(own_name, Named), str(tmp_path), workers=1)
    assert [one.task for one in done] == ["MapBatches(clean of 3)"] * 3


def fail(args: Given, folder: str) -> Done:
    if args.i == 1:
        raise InputError("dump.json bytes 0-9 is not what it was.")
    return [][args.i]


@pytest.mark.parametrize(("i", "kind"), [(1, InputError), (2, CriaError)])
def test_a_failed_unit_is_named_in_one_sentence(
    i: int, kind: type[CriaError], ray_session: Any, tmp_path: Path
) -> None:
    unit = Unit(stage="fail", name="dump.json bytes 0-9", args=Given(i))
    with pytest.raises(kind, match=r"dump\.json bytes 0-9"):
        pipeline.run_units([unit], Process(fail, Done), str(tmp_path), workers=1)


@pytest.mark.slow
def test_prometheus_reads_the_counts_of_the_ledger(ray_session: Any, tmp_path: Path) -> None:
    same = conversation("a", "How do I boil an egg?", "Eight minutes.")
    refused = conversation("b", "How do I boil it?", "I'm sorry, but I cannot help with that.")
    dump = write_dump(tmp_path / "dump.json", [same, same, refused, {"id": "c"}])
    config = CleanConfig(inputs=(str(dump),), out=str(tmp_path / "out"), profile="strict")
    resolved, files = clean.prepare(config)
    run_units = pipeline.ray_units(2)
    ledger = clean.run(resolved, files, Reporter("json"), run_units, pipeline.count).to_json()
    expected = {("kept", ""): ledger["records"]["kept"]} | {
        (outcome, rule): amount
        for outcome in ("dropped", "quarantined")
        for rule, amount in ledger["records"][outcome].items()
    }
    assert {outcome for outcome, _ in expected} == {"kept", "dropped", "quarantined"}
    port = next(node["MetricsExportPort"] for node in ray.nodes() if node["Alive"])
    url = f"http://127.0.0.1:{port}/metrics"
    _wait(lambda: _scraped(url, "records_total") == expected, every_s=1)
    assert sum(_scraped(url, "input_bytes_total").values()) == ledger["bytes"]["input"]
    page = urllib.request.urlopen(url).read().decode()
    for name in ("records_total", "input_bytes_total"):
        assert f"# HELP ray_cria_data_{name} {pipeline.HELP[name]}" in page


def test_every_counter_says_what_it_counts() -> None:
    root = Path(pipeline.__file__).parent
    sources = "".join(path.read_text() for path in root.rglob("*.py"))
    assert set(re.findall(r'\bcount\("(\w+)"', sources)) == set(pipeline.HELP)


def _scraped(url: str, name: str) -> dict[tuple[str, str], int]:
    """This process's counter by outcome and rule, as Ray's endpoint gives it."""
    found: dict[tuple[str, str], int] = {}
    worker_id = ray.get_runtime_context().get_worker_id()
    text = urllib.request.urlopen(url).read().decode()
    for labels, value in re.findall(rf"^ray_cria_data_{name}\{{(.*)\}} (\S+)$", text, re.MULTILINE):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if tags["WorkerId"] == worker_id:
            found[tags.get("outcome", ""), tags.get("rule", "")] = int(float(value))
    return found


def test_the_command_line_speaks_in_sentences(ray_session: Any, tmp_path: Path) -> None:
    dump = tmp_path / "dump.json"
    dump.write_bytes(json.dumps([{"id": "a", "conversations": []}]).encode())
    (tmp_path / "file").touch()
    cases = {
        ("nothing.json", "out"): "names no file",
        (str(dump), str(tmp_path / "file")): "is a file; expected a folder",
        (str(dump), "/proc/cria"): "cannot be written",
    }
    for (source, out), sentence in cases.items():
        command = [sys.executable, "-m", "apps.data", "clean", source, "--out", out]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert sentence in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
