"""One Ray per test session, and real data when it is there."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a script's background
    signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).resolve().parent
SERVE_FOLDERS = ("serve", "e2e")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers, the tests that share a Ray, or a browser, stay on one.

    Ray's are two groups, each with a Ray of its own: those that serve take as long as the others.
    """
    for item in items:
        if item.get_closest_marker("ray"):
            serves = item.path.relative_to(TESTS).parts[0] in SERVE_FOLDERS
            item.add_marker(pytest.mark.xdist_group("ray-serve" if serves else "ray"))
        elif item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Function, nextitem: pytest.Item | None) -> None:
    """Ray goes with the last test of its group: idle, it would take a fifth of two cores."""
    ends = nextitem is not None and not nextitem.get_closest_marker("ray")
    if ends and item.get_closest_marker("ray"):
        for fixture in item._fixtureinfo.name2fixturedefs.get("ray_session", ()):
            fixture.finish(item._request)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[object]:
    """The session's Ray; commands started in child processes join it through `child_env()`."""
    from apps.common.command.runtime import ray_session

    with ray_session(num_cpus=4, object_store_bytes=256 << 20) as session:
        yield session


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """A boto3 client of a real S3 server, which every S3 library here finds through AWS_*.

    One for the session: s3fs keeps its connections by name, whatever endpoint they had.
    """
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield boto3.client("s3")
    server.stop()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real public data, named by CRIA_TEST_DATA."""
    folder = os.environ.get("CRIA_TEST_DATA")
    if not folder:
        pytest.skip("CRIA_TEST_DATA is not set; it names the folder of real test data")
    return Path(folder)
