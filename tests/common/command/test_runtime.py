from pathlib import Path

import pytest

from apps.common.command.runtime import ray_session
from apps.common.errors import ConfigError
from tests.common.command.slow_ray import raylet, start


@pytest.mark.slow
@pytest.mark.ray
def test_a_ray_that_cannot_start_is_one_sentence(tmp_path: Path) -> None:
    process = start(raylet(tmp_path, "exit 1"), wait_s=5)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "Ray did not start, twice: " in err and "Traceback" not in err


def test_the_dashboards_address_is_refused_with_the_command_that_takes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(ConfigError, match="ray job submit"), ray_session():
        pass
